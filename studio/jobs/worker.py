"""One job in one process: `python -m studio.jobs.worker FOLDER`. The only place where jobs reach the engine.

It holds the folder's lock for life, tells its story into the journal, and ends with one `ended` event, whatever
happens short of being killed. Not here: the story itself (studio.engine.train, evaluate, export, studio.data.audit).
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from studio import secret
from studio.errors import Diverged, OutOfMemory, StudioError
from studio.events import Ended, Started
from studio.jobs.folder import JobFolder, earlier, export_target, find
from studio.jobs.journal import Journal, last_attempt

_OUT_OF_MEMORY = "Out of memory. Lower training.batch_size and raise training.accumulation, or lower data.max_length."
_TOO_MUCH_TO_COMPARE = "Out of memory. Lower near_rows, or switch near_duplicates off."
BEAT_S = 10.0
"""Seconds between heartbeats."""
VERSIONS = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets")


def main(path: str) -> int:
    """Run the job in the folder. Returns the exit status: 0 finished or stopped, 1 failed, 3 already running."""
    secret.scrub_output()
    folder = JobFolder(Path(path))
    # bound to a name for the whole function: a collected lock would be a freed lock
    lock = FileLock(folder.lock)
    try:
        lock.acquire(timeout=5)
    except Timeout:
        print(f"{folder.id} already has a worker.", file=sys.stderr)
        return 3
    with lock:
        journal = Journal(folder.events, last_attempt(folder.events) + 1)
        journal.append(Started(pid=os.getpid(), host=platform.node(), versions=versions()))
        # a request to end, from a shell or the system, is honoured like Stop: at the next step, after a save
        signal.signal(signal.SIGTERM, lambda *_: folder.ask_to_stop())
        signal.signal(signal.SIGINT, lambda *_: folder.ask_to_stop())
        with _beating(folder):
            ended = _run(folder, journal)
        journal.append(ended)
        folder.stop.unlink(missing_ok=True)
        journal.close()
    _let_the_next_begin(folder)
    return 1 if ended.state == "failed" else 0


@contextmanager
def _beating(folder: JobFolder) -> Iterator[None]:
    """Touch the heartbeat meanwhile, so that a process that is suspended can be told from a step that takes long."""
    over = threading.Event()

    def beat() -> None:
        while True:
            with suppress(OSError):  # a full disk is told by what writes more
                folder.heartbeat.touch()
            if over.wait(BEAT_S):
                return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _let_the_next_begin(folder: JobFolder) -> None:
    """Now that the lock is free. Where a page is open it does the same, and one of both is first."""
    from studio.jobs import control

    if folder.kind_or_none() == "train":
        try:
            control.advance()
        except (StudioError, OSError):
            traceback.print_exc()


def _run(folder: JobFolder, journal: Journal) -> Ended:
    try:
        outcome = _story(folder.read_about()["kind"])(folder, journal.append, folder.stop.exists)
    except StudioError as error:
        causes = {Diverged: "diverged", OutOfMemory: "out_of_memory"}
        return Ended(state="failed", message=str(error), cause=causes.get(type(error)))
    except MemoryError:
        audits = folder.read_about()["kind"] == "audit"
        return _out_of_memory(_TOO_MUCH_TO_COMPARE if audits else _OUT_OF_MEMORY)
    except OSError as error:
        traceback.print_exc()
        return Ended(state="failed", message=_system_fault(error, folder))
    except BaseException as error:  # noqa: BLE001 - the journal must end even for a bug; the log holds all of it
        traceback.print_exc()
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which cannot be imported here
            return _out_of_memory(_OUT_OF_MEMORY)
        last = str(error).strip().splitlines()[:1] or [""]
        return Ended(state="failed", message=f"{type(error).__name__}: {last[0]} (whole story in {folder.log})")
    # without an outcome it was stopped; a wish to stop that came after the last step changes nothing
    return Ended(state="finished" if outcome else "stopped", path=str(outcome) if outcome else None)


def _out_of_memory(text: str) -> Ended:
    return Ended(state="failed", message=text, cause="out_of_memory")


Story = Callable[[JobFolder, Callable[[Any], None], Callable[[], bool]], Any]


def _story(kind: str) -> Story:
    """What a kind of job does. Imported here: the engine's imports take seconds, and an audit needs none of them."""
    if kind != "audit":
        import studio.engine.stack  # noqa: F401
    if kind == "train":
        from studio.engine.train import train

        return lambda folder, emit, stopping: train(
            folder.read_spec(),
            checkpoints=folder.checkpoints,
            adapter=folder.adapter,
            record=folder.record,
            emit=emit,
            stopping=stopping,
            code=folder.rewards if folder.rewards.is_file() else None,
            judge=_judge(folder),
            starts=lambda: [earlier(name) for name in folder.read_spec().start.adapters],
            rate=folder.read_rate(),
        )
    if kind == "evaluate":
        from studio.engine.evaluation.answers import evaluate

        return lambda folder, emit, stopping: evaluate(
            (spec := folder.read_spec()),
            trained=(run := find(spec.run)).read_spec(),
            adapter=run.adapter_at(spec.checkpoint),
            predictions=folder.predictions,
            emit=emit,
            stopping=stopping,
        )
    if kind == "audit":
        from studio.data.audit import audit
        from studio.engine.models.tokenizer import tokenizer_of

        return lambda folder, emit, stopping: audit(
            (spec := folder.read_spec()),
            tokenizer=tokenizer_of(spec.model) if spec.model else None,
            report=folder.report,
            findings=folder.findings,
            emit=emit,
            stopping=stopping,
        )
    from studio.engine.export import export

    return lambda folder, emit, stopping: export(
        (spec := folder.read_spec()),
        trained=(run := find(spec.run)).read_spec(),
        adapter=run.adapter_at(spec.checkpoint),
        target=export_target(spec),
        emit=emit,
        stopping=stopping,
    )


def _judge(folder: JobFolder) -> Any:
    """The reward model that a run names."""
    from studio.engine.rewards import Judge

    name = getattr(folder.read_spec().stage, "reward_model", None)
    return Judge((run := find(name)).read_spec(), run.adapter_at()) if name else None


def _system_fault(error: OSError, folder: JobFolder) -> str:
    place = error.filename or folder.path
    return (
        f"{error.strerror or error} at {place}. Earlier checkpoints are untouched; free space or rights, then resume."
    )


def versions() -> dict[str, str]:
    installed = {each.name.lower() for each in metadata.distributions() if each.name}
    return {name: metadata.version(name) for name in VERSIONS if name in installed}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
