"""A job's folder: the one place where paths inside it are built, and the whole truth about the job.

    spec.yaml      what was asked for        events.jsonl   what happened, one event a line
    job.json       kind, name, time          worker.log     everything the worker printed
    lock           held by the worker        stop           present: end at the next step
    checkpoints/   checkpoint-N              adapter/       the finished adapter
    started        touched at each start     record.json    versions, hashes, choices
    queued         its place in the queue    exit.json      how the worker's process ended
    heartbeat      touched while the worker's process runs
    rate           share of the learning rate of the spec, after a run that diverged
    start/         what the run went on from loss.svg       the loss as a picture
    predictions.jsonl                        one line per evaluated row
    report.json      figures of an audit     findings/      where an audit found something

Not here: what the lines in events.jsonl mean (studio.events), and who runs the worker (studio.jobs.executors).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from studio import specs
from studio.errors import JobError, unknown
from studio.home import NAME, checked_name, home, write_atomically


@dataclass(frozen=True)
class JobFolder:
    """The paths of one job. The folder's name is the job's id."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def spec(self) -> Path:
        return self.path / "spec.yaml"

    @property
    def about(self) -> Path:
        return self.path / "job.json"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "worker.log"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def stop(self) -> Path:
        return self.path / "stop"

    @property
    def started(self) -> Path:
        return self.path / "started"

    @property
    def queued(self) -> Path:
        """Present while the job waits for its turn (studio.jobs.queue)."""
        return self.path / "queued"

    @property
    def heartbeat(self) -> Path:
        return self.path / "heartbeat"

    @property
    def exit(self) -> Path:
        return self.path / "exit.json"

    @property
    def rate(self) -> Path:
        return self.path / "rate"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def record(self) -> Path:
        return self.path / "record.json"

    @property
    def rewards(self) -> Path:
        """A copy of the Python file with a reward function that somebody named in the shell."""
        return self.path / "rewards.py"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.jsonl"

    @property
    def report(self) -> Path:
        return self.path / "report.json"

    @property
    def findings(self) -> Path:
        return self.path / "findings"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"checkpoint-{step}"

    def checkpoint_steps(self) -> tuple[int, ...]:
        """Steps of the checkpoints that are whole, ascending."""
        # the manifest is written last, so a folder without it is half a save
        names = [path.parent.name for path in self.checkpoints.glob("checkpoint-*/manifest.json")]
        return tuple(sorted(int(name[11:]) for name in names if name[11:].isdigit()))

    def adapter_at(self, step: int | None = None) -> Path:
        """The adapter of a checkpoint; without a step the finished one, else the newest checkpoint's.

        Raises: JobError: there is none.
        """
        steps = self.checkpoint_steps()
        if step is not None and step not in steps:
            kept = ", ".join(map(str, steps)) or "none"
            raise JobError(f"{self.id} has no checkpoint at step {step}. Kept: {kept}.")
        if step is None and self.adapter.is_dir():
            return self.adapter
        if not steps:
            raise JobError(f"{self.id} has no adapter yet. Wait for its first checkpoint, or let it finish.")
        return self.checkpoint(step if step is not None else steps[-1])

    def read_about(self) -> dict[str, Any]:
        """kind, name and created (seconds since 1970) of the job."""
        try:
            about = json.loads(self.about.read_text(encoding="utf-8"))
            if about["kind"] not in specs.KINDS:
                raise ValueError(f"its kind is {about['kind']!r}")
            return {"kind": about["kind"], "name": str(about["name"]), "created": float(about["created"])}
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            why = f"{type(error).__name__}: {error}"
            raise JobError(f"{self.about} cannot be read ({why}). The job's folder is damaged.") from error

    def read_rate(self) -> float:
        """What the learning rate of the spec is multiplied by."""
        try:
            return float(self.rate.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 1.0

    def kind_or_none(self) -> str | None:
        """The job's kind; None for a folder that is damaged."""
        try:
            return self.read_about()["kind"]
        except JobError:
            return None

    def read_spec(self) -> Any:
        """The spec that the job was started with."""
        return specs.load(self.spec, specs.KINDS[self.read_about()["kind"]])

    def is_locked(self) -> bool:
        """Whether a worker lives. A process id could have been reused; a held lock cannot."""
        if not self.lock.exists():
            return False
        if fcntl is None:
            try:
                with FileLock(self.lock, timeout=0):
                    return False
            except Timeout:
                return True
        # shared, so that several that look at once do not take each other for the worker, whose lock is exclusive
        with self.lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def ask_to_stop(self) -> None:
        """The worker sees this at its next step, saves, and ends."""
        self.stop.touch()


def create(kind: str, spec: specs.Section, name: str, *, code: Path | None = None) -> JobFolder:
    """Make the folder of a new job. name: becomes part of its id. code: a Python file to keep a copy of."""
    checked_name(name)
    jobs = home().jobs
    while True:
        stamp = time.strftime("%m%d-%H%M%S")
        folder = JobFolder(jobs / f"{name[:48]}-{stamp}-{secrets.token_hex(1)}")
        try:
            folder.path.mkdir()
            break
        except FileExistsError:
            continue
    write_atomically(folder.spec, specs.dump(spec))
    if code is not None:
        shutil.copyfile(code, folder.rewards)
    # last, because a folder without it is not a job yet
    write_atomically(folder.about, json.dumps({"kind": kind, "name": name, "created": time.time()}))
    return folder


def find(job_id: str) -> JobFolder:
    """The folder of a job. Raises: JobError: there is none of this id."""
    safe = isinstance(job_id, str) and NAME.fullmatch(job_id)  # the page hands on whatever it is sent
    folder = JobFolder(home().jobs / job_id) if safe else None
    if folder is None or not folder.about.is_file():
        raise JobError(unknown("job", str(job_id)[:80], (each.id for each in every())))
    return folder


def earlier(name: str) -> Path:
    """What a run goes on from: `RUN` for its outcome or newest checkpoint, `RUN@STEP`, or the path of a folder.

    Raises: JobError: there is no such run, checkpoint or folder.
    """
    if "/" in name or "\\" in name or name.startswith("~"):
        folder = Path(os.path.expanduser(name)).resolve()  # noqa: PTH111 - Path.expanduser raises for an unknown user
        if not folder.is_dir():
            raise JobError(f"There is no folder {folder}. Correct the path, or name an earlier run.")
        return folder
    run, _, step = name.partition("@")
    if step and not (step.isdecimal() and len(step) < 10):  # isdigit takes ², which is no number
        raise JobError(f"'{name}' is not of the form RUN@STEP.")
    return find(run).adapter_at(int(step) if step else None)


def every() -> Iterator[JobFolder]:
    """All jobs, in no order."""
    for entry in os.scandir(home().jobs):
        folder = JobFolder(Path(entry.path))
        if folder.about.is_file():
            yield folder


def export_target(spec: specs.ExportSpec) -> Path:
    """Where an export goes: `out`, or exports/ in STUDIO_HOME, named after the run, format and precision."""
    if spec.out:
        return Path(os.path.expanduser(spec.out)).resolve()  # noqa: PTH111 - Path.expanduser raises for an unknown user
    step = f"-step{spec.checkpoint}" if spec.checkpoint else ""
    kind = f"merged-{spec.dtype}" if spec.format == "merged" else "adapter"
    return home().exports / f"{spec.run}{step}-{kind}"
