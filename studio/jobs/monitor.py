"""The background thread that turns every job's events into immutable views.

The page and the shell only read views. A view is swapped whole, so a reader never sees half an update; restarting the
process loses nothing, because the folder is read again. Not here: starting or stopping jobs (studio.jobs.control).
"""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from studio.errors import JobError, StudioError, unknown
from studio.events import Ended, Event, Measured, Note, Phase, Plan, Preflight, Sample, Saved, Started, Step
from studio.home import home
from studio.jobs import folder as folders
from studio.jobs import queue
from studio.jobs.folder import JobFolder
from studio.jobs.journal import tail

log = logging.getLogger("studio.jobs")

State = Literal[
    "queued", "starting", "running", "stopping", "stalled",
    "finished", "stopped", "failed", "out_of_memory", "diverged", "killed", "interrupted",
]  # fmt: skip
LIVE: frozenset[str] = frozenset({"starting", "running", "stopping", "stalled"})

STARTING_S = 20.0
"""A worker takes its lock within this many seconds of being asked for, or it died before it could."""
OUTLINE_STEPS = 20
"""Of a run that is over, the last steps that are read before somebody asks for the run itself."""
STALLED_S = 120.0
"""A living worker that says nothing for this long is shown as stalled. Loading a large model is quieter than a step."""
STALLED_STEPS = 5.0
"""And for so many times as long as its steps take."""
BEATS_LOST_S = 60.0
"""Seconds without a heartbeat after which a worker is stalled: its process, or the machine, is suspended."""


@dataclass(frozen=True)
class JobView:
    """A job as it stands. Times are seconds since 1970; steps, loss and the like are None until known."""

    id: str
    kind: str
    name: str
    created: float
    state: State = "starting"
    spec: dict[str, Any] | None = None
    attempt: int = 0
    phase: Phase | None = None
    plan: Plan | None = None
    preflight: Preflight | None = None
    steps: tuple[Step, ...] = ()
    """One per optimiser step, ascending; after a resume the newer attempt's value of a step."""
    generation: int = 0
    """Grows when earlier points changed (a resume went back), so that a chart knows to redraw."""
    measured: tuple[Measured, ...] = ()
    samples: tuple[Sample, ...] = ()
    saved: tuple[int, ...] = ()
    """Steps of the checkpoints that exist."""
    has_adapter: bool = False
    """Whether the finished adapter is there."""
    notes: tuple[str, ...] = ()
    ended: Ended | None = None
    place: int = 0
    """In the queue, counted from 1; 0 for a job that does not wait."""
    news: int = 0
    """Grows with whatever it tells but its steps and phases, so that who watches knows when to look at the rest."""
    last_time: float = 0.0
    skipped_lines: int = 0

    @property
    def live(self) -> bool:
        return self.state in LIVE

    @property
    def step(self) -> int:
        return self.steps[-1].step if self.steps else 0

    @property
    def total_steps(self) -> int | None:
        return self.plan.total_steps if self.plan else None

    @property
    def seconds_left(self) -> float | None:
        """From the median time of the last 20 steps; None before the third step or when the job is not running."""
        recent = sorted(step.seconds for step in self.steps[-20:] if step.seconds)
        if self.state not in ("running", "stopping") or len(recent) < 3 or not self.total_steps:
            return None
        return recent[len(recent) // 2] * max(0, self.total_steps - self.step)

    @property
    def tokens_per_s(self) -> float | None:
        """Mean over the last 10 steps."""
        recent = [step.tokens_per_s for step in self.steps[-10:] if step.tokens_per_s]
        return sum(recent) / len(recent) if recent else None


class Monitor:
    """Tails the folders of all jobs. `views` and `get` are safe from any thread.

    Of jobs that were over when they were first seen, the views have the first and the last steps only, until one is
    asked for by its id: a home with years of runs opens as fast as a new one. each_round: called after each look.
    Invariant, under the lock: `_views` is
    replaced, never changed in place, and `_offsets` and `_outlined` belong to it.
    """

    def __init__(self, interval_s: float = 0.5, each_round: Callable[[], Any] = lambda: None):
        self._interval_s = interval_s
        self._each_round = each_round
        self._lock = threading.Lock()
        self._views: dict[str, JobView] = {}
        self._offsets: dict[str, int] = {}
        self._outlined: set[str] = set()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> Monitor:
        """Read everything once, then keep reading in a daemon thread."""
        self.refresh()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop reading. The views stay as they are."""
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def views(self, kind: str | None = None) -> list[JobView]:
        """All jobs, newest first; of one kind if given."""
        chosen = [view for view in self._views.values() if kind is None or view.kind == kind]
        return sorted(chosen, key=lambda view: view.created, reverse=True)

    def get(self, job_id: str | None) -> JobView | None:
        """A job with all of its steps; None if there is none of this id."""
        if job_id in self._outlined:
            self._read_whole(job_id)
        return self._views.get(job_id) if job_id else None

    def now(self, job_id: str) -> JobView | None:
        """As `get`, with what a live job has told since all were last looked at."""
        view = self.get(job_id)
        if view is None or not view.live:
            return view
        with self._lock:
            try:
                view = self._advance(JobFolder(home().jobs / job_id), self._views.get(job_id, view))
            except OSError as error:
                log.warning("%s cannot be read: %s", job_id, error)
                return view
            self._views = self._views | {job_id: view}
            return view

    def need(self, job_id: str) -> JobView:
        """The view of a job. Raises: JobError: there is none of this id."""
        view = self.get(job_id) or self.refresh().get(job_id)
        if view is None:
            raise JobError(unknown("job", job_id, self._views))
        return view

    def refresh(self) -> Monitor:
        """Read what is new, now."""
        with self._lock:
            views = {}
            for folder in folders.every():
                old = self._views.get(folder.id)
                try:
                    views[folder.id] = (
                        self._advance(folder, old) if old is None or self._may_change(old, folder) else old
                    )
                except OSError as error:  # removed, or unreadable, between listing and reading; others must go on
                    log.warning("%s is passed over: %s", folder.path, error)
            self._offsets = {job_id: self._offsets.get(job_id, 0) for job_id in views}
            self._outlined &= views.keys()
            self._views = views
        return self

    def _run(self) -> None:
        while not self._wake.wait(self._interval_s):
            try:
                self.refresh()
                self._each_round()
            except (OSError, StudioError) as error:  # such as a disk that is away for a moment; the views stay
                log.warning("The jobs cannot be listed: %s", error)

    def _read_whole(self, job_id: str) -> None:
        with self._lock:
            if job_id not in self._outlined:
                return
            try:
                whole = self._begin(JobFolder(home().jobs / job_id), outline=False)
            except OSError as error:
                log.warning("%s cannot be read: %s", job_id, error)
                return
            self._views = self._views | {job_id: whole}

    def _may_change(self, view: JobView, folder: JobFolder) -> bool:
        """By size, not by time: a clock that was set back must not hide a resumed job."""
        if view.live or view.state == "queued" or folder.queued.is_file():
            return True
        return folder.events.exists() and folder.events.stat().st_size != self._offsets.get(view.id, 0)

    def _begin(self, folder: JobFolder, *, outline: bool) -> JobView:
        events, offset, skipped = tail(folder.events, last_steps=OUTLINE_STEPS if outline else None)
        self._offsets[folder.id] = offset
        (self._outlined.add if outline else self._outlined.discard)(folder.id)
        return _told(folder, replace(_first_view(folder), skipped_lines=skipped), events)

    def _advance(self, folder: JobFolder, old: JobView | None) -> JobView:
        if old is None:
            return self._begin(folder, outline=not folder.is_locked())
        events, offset, skipped = tail(folder.events, self._offsets.get(folder.id, 0))
        if not events and not skipped:
            self._offsets[folder.id] = offset
            return _standing(folder, old)
        if folder.id in self._outlined:  # it was resumed
            return self._begin(folder, outline=False)
        self._offsets[folder.id] = offset
        return _told(folder, replace(old, skipped_lines=old.skipped_lines + skipped), events)


def view_of(folder: JobFolder, *, outline: bool = False) -> JobView:
    """One job's view, read from its first byte; for the shell. outline: with the first and the last steps only."""
    events, _, skipped = tail(folder.events, last_steps=OUTLINE_STEPS if outline else None)
    return _told(folder, replace(_first_view(folder), skipped_lines=skipped), events)


def is_live(folder: JobFolder) -> bool:
    """What `view_of(folder).live` says, without reading all that the job told where that says nothing about it.

    Raises: JobError: the folder is damaged.
    """
    if folder.is_locked():
        return True
    began = max(folder.read_about()["created"], _changed(folder.started))
    return abs(time.time() - began) < STARTING_S and view_of(folder, outline=True).live


def _told(folder: JobFolder, view: JobView, events: list[Event]) -> JobView:
    view = fold(view, events)
    view = replace(view, saved=folder.checkpoint_steps(), has_adapter=folder.adapter.is_dir())
    return _standing(folder, view)


def _standing(folder: JobFolder, view: JobView) -> JobView:
    state = _state(folder, view)
    order = [each.id for each in queue.waiting()] if state == "queued" else []
    return replace(view, state=state, place=order.index(folder.id) + 1 if folder.id in order else 0)


def fold(view: JobView, events: list[Event]) -> JobView:
    """The view after some more events. Pure."""
    steps, generation = list(view.steps), view.generation
    changes: dict[str, Any] = {}
    measured, samples, notes = list(view.measured), list(view.samples), list(view.notes)
    for event in events:
        match event:
            case Started():
                changes |= {"ended": None, "attempt": event.attempt, "phase": None}
            case Step():
                if steps and event.step <= steps[-1].step:
                    steps = [step for step in steps if step.step < event.step]
                    generation += 1
                steps.append(event)
            case Phase():
                changes["phase"] = event
            case Plan():
                changes["plan"] = event
            case Preflight():
                changes["preflight"] = event
            case Measured():
                same = [each for each in measured if (each.step, each.subject) != (event.step, event.subject)]
                measured = [*same, event]
            case Sample():
                same_prompt = [each for each in samples if (each.step, each.prompt) != (event.step, event.prompt)]
                samples = [*same_prompt, event]
            case Note():
                notes.append(event.text)
            case Ended():
                changes["ended"] = event
            case Saved():
                pass  # the folder itself says which checkpoints exist
        changes["last_time"] = event.time
    return replace(
        view,
        news=view.news + sum(not isinstance(event, Step | Phase) for event in events),
        steps=tuple(steps),
        generation=generation,
        measured=tuple(measured),
        samples=tuple(samples),
        notes=tuple(dict.fromkeys(notes)),
        **changes,
    )


def log_tail(folder: JobFolder, lines: int = 200, most_bytes: int = 64_000) -> str:
    """The last lines of the worker's log; a progress bar's rewritten lines count as one."""
    try:
        with folder.log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - most_bytes))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return "\n".join(line.rsplit("\r", 1)[-1] for line in text.splitlines()[-lines:])


def _first_view(folder: JobFolder) -> JobView:
    """A damaged folder still gets a view that says so, because one must not hide the others."""
    try:
        about = folder.read_about()
        view = JobView(folder.id, about["kind"], about["name"], about["created"], last_time=about["created"])
    except StudioError as error:
        return JobView(folder.id, "train", folder.id, _changed(folder.path), notes=(str(error),))
    try:
        return replace(view, spec=folder.read_spec().model_dump(mode="json"))
    except StudioError as error:
        return replace(view, notes=(str(error),))


def _state(folder: JobFolder, view: JobView) -> State:
    # a worker that has told its end still holds its lock for a moment
    if folder.queued.is_file():
        return "queued"
    if view.ended is not None and _changed(folder.started) <= view.ended.time:
        return view.ended.cause or view.ended.state
    if folder.is_locked():
        if folder.stop.exists():
            return "stopping"
        return "stalled" if _is_quiet(folder, view) else "running" if view.attempt else "starting"
    if (death := _death(folder)) is not None:
        return death
    # the distance, because a clock that was set back must not keep a dead job starting for hours
    if abs(time.time() - max(view.created, _changed(folder.started))) < STARTING_S:
        return "starting"
    return "interrupted"


def _is_quiet(folder: JobFolder, view: JobView) -> bool:
    now = time.time()
    if (beat := _changed(folder.heartbeat)) and now - max(beat, _changed(folder.started)) > BEATS_LOST_S:
        return True
    recent = sorted(step.seconds for step in view.steps[-20:] if step.seconds)
    patience_s = max(STALLED_S, STALLED_STEPS * recent[len(recent) // 2] if recent else 0.0)
    return now - max(view.last_time, _changed(folder.log)) > patience_s


def _death(folder: JobFolder) -> State | None:
    """What ended the worker, where the process that started it could tell."""
    try:
        told = json.loads(folder.exit.read_text(encoding="utf-8"))
        if told["status"] != -signal.SIGKILL:
            return None
        return "out_of_memory" if told["memory"] else "killed"
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
