"""Submit, stop and resume jobs, and wait for them. Not here: what a job does (the worker), what it told (monitor)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from studio import secret, specs
from studio.data import registry, selection
from studio.errors import Fault, JobError, SpecError, unknown
from studio.events import Ended, Event, Started
from studio.home import write_atomically
from studio.jobs import folder as folders
from studio.jobs import queue
from studio.jobs.executors import local
from studio.jobs.folder import JobFolder
from studio.jobs.journal import Journal, last_attempt, tail
from studio.jobs.monitor import JobView, is_live, log_tail, view_of

AT_ONCE_S = 5.0
"""Starts of one spec that are no further apart are one start."""


class Executor(Protocol):
    """Where workers run: `start` returns at once, and the worker takes the folder's lock."""

    def start(self, folder: JobFolder) -> None: ...


def submit(spec: specs.Spec, *, executor: Executor = local, code: Path | None = None) -> JobFolder:
    """Make a job of a spec and start it; a training run waits in the queue while another is alive.

    Two training runs would share the same cores or GPU and slow each other down; jobs of other kinds may run beside
    one. The same spec started again within AT_ONCE_S is the same start, such as one in two tabs. code: a Python file
    with a reward function, which runs with the user's rights; only the shell and Python may give one, never the page.
    Raises: SpecError: it names no dataset, or one that is unknown or has faulty rows that are not to be skipped.
        JobError: it asks for a run or checkpoint that does not exist, or for a target that does.
    """
    kind = next(kind for kind, each in specs.KINDS.items() if isinstance(spec, each))
    spec = _settled(spec)
    _check_secrets(spec)
    if kind == "train":
        _check_datasets(spec)
        _check_rewards(spec, code)
        _check_starts(spec)
    elif kind == "audit":
        _check_audited(spec)
    else:
        folders.find(spec.run).adapter_at(spec.checkpoint)
    if kind == "export" and (target := folders.export_target(spec)).exists():
        raise JobError(f"{target} exists already. Name another folder in out, or move that one away.")
    with queue.submitting():
        if kind == "train" and (twin := _started_just_now(spec)):
            return twin
        folder = folders.create(kind, spec, _name(spec), code=code)
        _start_or_queue(folder, executor)
    return folder


def resume(job_id: str, *, executor: Executor = local, rate: float | None = None) -> JobFolder:
    """Start a further attempt of a job in its own folder; a training run goes on from its newest checkpoint.

    It waits in the queue while another training run is alive. rate: the share of its learning rate so far at which it
    goes on, above 0 and up to 1.
    Raises: JobError: it is alive, waits already, or has finished; or the rate is none.
    """
    if rate is not None and not 0 < rate <= 1:
        raise JobError(f"A rate of {rate} is not above 0 and up to 1, such as 0.5 for half.")
    with queue.submitting():
        folder = folders.find(job_id)
        view = view_of(folder)
        if view.live:
            raise JobError(f"{job_id} is {view.state}. Stop it first.")
        if view.state == "queued":
            raise JobError(f"{job_id} waits in the queue already.")
        if view.state == "finished":
            raise JobError(f"{job_id} has finished. Start a new run with a changed spec.")
        if rate is not None:
            write_atomically(folder.rate, f"{folder.read_rate() * rate:.6g}")
        _start_or_queue(folder, executor)
    return folder


def advance(executor: Executor = local) -> JobFolder | None:
    """Start the run whose turn it is, if no other is alive. Returns: its folder, or None."""
    if not queue.waiting():  # without the lock, because it is asked often
        return None
    with queue.submitting():
        if _living():
            return None
        folder = next(iter(queue.waiting()), None)
        if folder is not None:
            queue.leave(folder)
            _start(folder, executor)
        return folder


def stop(job_id: str) -> JobFolder:
    """Ask a job to save and end at its next step, or take it out of the queue.

    Raises: JobError: it is neither alive nor waiting.
    """
    folder = folders.find(job_id)
    with queue.submitting():
        if folder.queued.is_file():
            queue.leave(folder)
            journal = Journal(folder.events, last_attempt(folder.events) + 1)
            journal.append(Ended(state="stopped", message="It was taken out of the queue."))
            journal.close()
            return folder
    view = view_of(folder)
    if not view.live:
        raise JobError(f"{job_id} is not running ({view.state}).")
    folder.ask_to_stop()
    return folder


def follow(folder: JobFolder, *, poll_s: float = 0.2, offset: int = 0, executor: Executor = local) -> Iterator[Event]:
    """The events of a job's present attempt as they come, until it ends. One that waits begins when its turn has come.

    offset: skip this many bytes of older attempts. Raises: JobError: the worker died without a word; its log's end is
        in the text.
    """
    while True:
        events, offset, _ = tail(folder.events, offset)
        yield from events
        if any(isinstance(event, Ended) for event in events):
            return
        if folder.queued.is_file():
            advance(executor)
        # the lock first, because a view is the whole history read again
        elif not events and not folder.is_locked() and not view_of(folder).live:
            events, offset, _ = tail(folder.events, offset)
            yield from events
            if not any(isinstance(event, Ended) for event in events):
                raise JobError(_death(folder))
            return
        time.sleep(poll_s)


def wait(folder: JobFolder, *, on_event: Callable[[Event], None] | None = None, offset: int = 0) -> JobView:
    """Follow a job to its end. Raises: JobError: it failed, with its message."""
    for event in follow(folder, offset=offset):
        if on_event:
            on_event(event)
        if isinstance(event, Ended) and event.state == "failed":
            raise JobError(event.message)
    return view_of(folder)


def _settled(spec: specs.Spec) -> specs.Spec:
    """With relative folders made absolute: the worker has a working directory of its own."""
    if isinstance(spec, specs.ExportSpec) and spec.out:
        return spec.model_copy(update={"out": _absolute(spec.out)})
    if isinstance(spec, specs.AuditSpec) and spec.model and spec.model.startswith((".", "~")):
        return spec.model_copy(update={"model": _absolute(spec.model)})
    if isinstance(spec, specs.TrainSpec):
        name, adapters = _settled_path(spec.model.name), tuple(map(_settled_path, spec.start.adapters))
        model = spec.model.model_copy(update={"name": name})
        return spec.model_copy(update={"model": model, "start": spec.start.model_copy(update={"adapters": adapters})})
    return spec


def _settled_path(name: str) -> str:
    return _absolute(name) if name.startswith((".", "~")) else name


def _absolute(path: str) -> str:
    return str(Path(os.path.expanduser(path)).absolute())  # noqa: PTH111 - Path.expanduser raises for an unknown user


def _check_datasets(spec: specs.TrainSpec) -> None:
    if not spec.data.datasets:
        raise SpecError([Fault("data.datasets", "is empty. Choose at least one dataset.")])
    known = [dataset.name for dataset in registry.every()]
    wrong = [name for name in spec.data.datasets if name not in known]
    if wrong:
        raise SpecError(Fault("data.datasets", unknown("dataset", name, known)) for name in wrong)
    if faults := [*selection.faulty_rows(spec.data), *selection.unfit_rows(spec.data, spec.stage.kind)]:
        raise SpecError(faults)


def _check_secrets(spec: specs.Spec) -> None:
    """What the folder would keep."""
    why = "which a run's folder must not keep. Leave it out; HF_TOKEN is read from the environment."
    faults = [
        Fault(f"trainer.{name}", f"is a secret, {why}")
        for name in getattr(spec, "trainer", ())
        if secret.is_secret_argument(name)
    ]
    text = specs.dump(spec)
    held = [name for name, value in secret.values().items() if value in text]
    if held:
        faults.append(Fault("the spec", f"holds the value of {held[0]}, {why}"))
    if faults:
        raise SpecError(faults)


def _check_starts(spec: specs.TrainSpec) -> None:
    faults = []
    for name in spec.start.adapters:
        try:
            folders.earlier(name)
        except JobError as error:
            faults.append(Fault("start.adapters", str(error)))
    if faults:
        raise SpecError(faults)


def _check_rewards(spec: specs.TrainSpec, code: Path | None) -> None:
    wanted = getattr(spec.stage, "rewards", ())
    faults = []
    if "file" in wanted and code is None:
        faults.append(
            Fault("stage.rewards", "has file, which only the shell can give: studio train --reward-file FILE.py")
        )
    if code is not None and "file" not in wanted:
        faults.append(Fault("stage.rewards", "has no file, but a reward file is given. Add file, or leave that out."))
    if code is not None and not code.is_file():
        faults.append(Fault("--reward-file", f"{code} is not a file."))
    if "model" in wanted and not folders.find(spec.stage.reward_model).adapter.is_dir():
        faults.append(Fault("stage.reward_model", f"{spec.stage.reward_model} has not finished. Let it finish first."))
    if faults:
        raise SpecError(faults)


def _check_audited(spec: specs.AuditSpec) -> None:
    known = [dataset.name for dataset in registry.every()]
    named = {"dataset": spec.dataset, "against": spec.against}
    if wrong := {field: name for field, name in named.items() if name and name not in known}:
        raise SpecError(Fault(field, unknown("dataset", name, known)) for field, name in wrong.items())


def _start(folder: JobFolder, executor: Executor) -> None:
    folder.exit.unlink(missing_ok=True)
    folder.started.touch()
    try:
        executor.start(folder)
    except OSError as error:
        raise JobError(f"The worker of {folder.id} could not be started: {error.strerror}.") from error


def _start_or_queue(folder: JobFolder, executor: Executor) -> None:
    folder.stop.unlink(missing_ok=True)
    if folder.read_about()["kind"] == "train" and (queue.waiting() or _living(besides=folder)):
        queue.enter(folder)
    else:
        _start(folder, executor)


def _living(*, besides: JobFolder | None = None) -> JobFolder | None:
    """A training run that is alive."""
    trains = (folder for folder in folders.every() if folder != besides and folder.kind_or_none() == "train")
    return next((folder for folder in trains if is_live(folder)), None)


def _started_just_now(spec: specs.TrainSpec) -> JobFolder | None:
    """A run of the same spec that was started a moment ago and goes on or waits."""
    for folder in folders.every():
        if folder.kind_or_none() != "train" or abs(time.time() - folder.read_about()["created"]) > AT_ONCE_S:
            continue
        if (folder.queued.is_file() or is_live(folder)) and folder.spec.read_text("utf-8") == specs.dump(spec):
            return folder
    return None


def _name(spec: specs.Spec) -> str:
    if isinstance(spec, specs.TrainSpec):
        return spec.output.name or (spec.data.datasets[0] if spec.data.datasets else "run")
    if isinstance(spec, specs.AuditSpec):
        return f"audit-{spec.dataset}"[:48].rstrip(".")
    return f"{'eval' if isinstance(spec, specs.EvaluateSpec) else 'export'}-{spec.run}"[:48]


def _death(folder: JobFolder) -> str:
    started = any(isinstance(event, Started) for event in tail(folder.events)[0])
    when = "before it could say why" if started else "while it was starting"
    last = log_tail(folder, lines=5).strip()
    return f"{folder.id} died {when}. Its log is {folder.log}" + (f" and ends:\n{last}" if last else ".")
