"""What a job can tell while it runs: small frozen classes, one JSON line each.

Every event carries the attempt it belongs to, because steps repeat when a job resumes; readers keep the last value of
a step. Not here: where the lines are kept (studio.jobs.journal) and what is made of them (studio.jobs.monitor).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    time: float = Field(default_factory=time.time)
    """Seconds since 1970, by the worker's clock. For display; the order of lines is the order of events."""
    attempt: int = 0
    """1 for the first start of the job, one more for each resume. Stamped by the journal."""


class Started(_Event):
    """A worker took the job's lock."""

    type: Literal["started"] = "started"
    pid: int
    host: str
    versions: dict[str, str] = {}


class Phase(_Event):
    """What the job is doing now: a key such as `load`, `tokenize`, `train`, and how far it is, if that is known."""

    type: Literal["phase"] = "phase"
    name: str
    done: int | None = None
    total: int | None = None
    unit: str = ""


class Plan(_Event):
    """What the run will do, told once per attempt before the first step."""

    type: Literal["plan"] = "plan"
    total_steps: int
    rows: int
    validation_rows: int = 0
    skipped_rows: int = 0
    """Rows without a single supervised token inside the cutoff."""
    effective_batch_size: int
    trainable_parameters: int
    total_parameters: int
    device: str
    choices: dict[str, str] = {}
    """What each "auto" of the spec became, by dotted field."""
    data: dict[str, str] = {}
    """sha256 of each dataset's content, by name."""
    counts: dict[str, dict[str, int]] = {}
    """What became of each dataset's rows: rows, faulty, unlearned, unwritable, skipped, trained, held, mixed, …"""
    path: Literal["fast", "trl"] = "trl"
    """Whether steps are the studio's own, or those of trl's trainer."""
    path_why: str = ""
    """Why they are trl's."""
    kernels: tuple[str, ...] = ()
    """Of other libraries, and for what, where a trial found them to be the quickest: `flash-attn: attention`."""


class Preflight(_Event):
    """What one real step on the longest rows took, before the first one of the run. Nothing of it is kept."""

    type: Literal["preflight"] = "preflight"
    tokens: int
    """Of the step, in all its rows."""
    seconds: float
    peak_gib: float
    """The most memory that the process held."""
    free_gib: float
    """What is left of the device's memory at that peak."""
    seconds_in_all: float | None = None
    """For all steps of the run, by the mean length of its rows."""


class Step(_Event):
    """One optimiser step. loss: the objective's; mean nats per supervised token where answers or texts are learned.

    grad_norm: before clipping.
    """

    type: Literal["step"] = "step"
    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float | None = None
    tokens_per_s: float | None = None
    """Real (unpadded) tokens per second over this step."""
    seconds: float | None = None
    memory_gib: float | None = None
    figures: dict[str, float] = {}
    """What else the stage tells, as its trainer names it: rewards/margins, accuracy, reward, kl, …"""


class Measured(_Event):
    """Scores at a step: validation loss of a run, or the figures of an evaluation for `subject` base or adapter."""

    type: Literal["measured"] = "measured"
    step: int | None = None
    subject: str = "adapter"
    scores: dict[str, float]


class Sample(_Event):
    """The answer to a fixed prompt at a step, decoded greedily."""

    type: Literal["sample"] = "sample"
    step: int
    prompt: str
    answer: str


class Saved(_Event):
    """A checkpoint is complete on disk."""

    type: Literal["saved"] = "saved"
    step: int
    path: str
    """Relative to the job's folder."""


class Note(_Event):
    """Something the user should know that does not end the job."""

    type: Literal["note"] = "note"
    text: str


class Ended(_Event):
    """The last event of an attempt. state `failed` carries what happened; `path` is the outcome, where there is one.

    cause: a failure that has a remedy of its own.
    """

    type: Literal["ended"] = "ended"
    state: Literal["finished", "stopped", "failed"]
    message: str = ""
    path: str | None = None
    cause: Literal["out_of_memory", "diverged"] | None = None


_Any = Started | Phase | Plan | Preflight | Step | Measured | Sample | Saved | Note | Ended
Event = Annotated[_Any, Field(discriminator="type")]
ADAPTER: TypeAdapter[Event] = TypeAdapter(Event)
Emit = Callable[[_Event], None]
