"""Finetune Studio from Python: audit, estimate, train, evaluate, export, chat, as the page and the shell do it.

    import studio

    run = studio.train(studio.load("spec.yaml"))
    print(studio.chat("Who are you?", adapter=run))
    print(studio.evaluate(run).scores)
    studio.export(run, format="merged")

Importing this costs nothing: each function imports what it needs. Not here: the work itself, which happens in worker
processes of their own (studio.jobs.worker).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from studio.data.audit import Report
    from studio.engine.fit import Fit
    from studio.errors import StudioError
    from studio.events import Event
    from studio.jobs.control import Executor
    from studio.jobs.monitor import JobView
    from studio.specs import AuditSpec, EvaluateSpec, ExportSpec, TrainSpec

__all__ = [
    "AuditSpec",
    "EvaluateSpec",
    "ExportSpec",
    "Job",
    "StudioError",
    "TrainSpec",
    "audit",
    "chat",
    "estimate",
    "evaluate",
    "export",
    "load",
    "train",
]

_LAZY = {
    "StudioError": "studio.errors",
    "AuditSpec": "studio.specs",
    "TrainSpec": "studio.specs",
    "EvaluateSpec": "studio.specs",
    "ExportSpec": "studio.specs",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'studio' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)


class Job:
    """A job by its id. Holds no state: every property is read from the job's folder when it is asked for."""

    def __init__(self, job_id: str):
        self.id = job_id

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    @property
    def folder(self) -> Path:
        from studio.jobs.folder import find

        return find(self.id).path

    @property
    def view(self) -> JobView:
        """Everything the job has told so far: steps, samples, checkpoints, notes."""
        from studio.jobs.folder import find
        from studio.jobs.monitor import view_of

        return view_of(find(self.id))

    @property
    def state(self) -> str:
        return self.view.state

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """The newest scores by subject: base and adapter of an evaluation, adapter of a run with validation rows."""
        return {measured.subject: dict(measured.scores) for measured in self.view.measured}

    @property
    def report(self) -> Report:
        """What an audit found. Raises: DataError: the job is no audit, or has not finished."""
        from studio.data.audit import Report
        from studio.jobs.folder import find

        return Report.load(find(self.id).report)

    @property
    def path(self) -> Path | None:
        """Where the outcome lies, once there is one: the adapter of a run, the folder of an export, a report."""
        from pathlib import Path

        ended = self.view.ended
        return Path(ended.path) if ended and ended.path else None

    def wait(self, on_event: Callable[[Event], None] | None = None) -> Job:
        """Return when the job has ended. Raises: JobError: it failed."""
        from studio.jobs import control
        from studio.jobs.folder import find

        control.wait(find(self.id), on_event=on_event)
        return self

    def events(self) -> Iterator[Event]:
        """The job's events from the first on, waiting for more until it ends."""
        from studio.jobs import control
        from studio.jobs.folder import find

        return control.follow(find(self.id))

    def stop(self) -> None:
        """Ask the job to save and end at its next step. Raises: JobError: it is not alive."""
        from studio.jobs import control

        control.stop(self.id)


def load(path: str | Path, overrides: Iterable[str] = ()) -> TrainSpec:
    """Read a training spec from a YAML file; overrides are `section.field=value`.

    Raises: SpecError: with every wrong field.
    """
    from pathlib import Path

    from studio import specs

    return specs.load(Path(path), specs.TrainSpec, overrides)


def estimate(spec: TrainSpec) -> Fit:
    """What a training run will need of memory, disk and time, whether it fits, and what would make it fit.

    Raises: SpecError: the method does not fit the model. ModelError: the model is not here, or tells too little.
    """
    from studio.jobs.needs import needs

    return needs(spec)


def train(
    spec: TrainSpec,
    *,
    wait: bool = True,
    on_event: Callable[[Event], None] | None = None,
    executor: Executor | None = None,
) -> Job:
    """Start a training run, and by default wait for its end. executor: where it runs; None is this machine.

    Raises: JobError: another run is alive, or this one failed.
    """
    return _submit(spec, wait, on_event, executor)


def audit(
    dataset: str | AuditSpec,
    *,
    wait: bool = True,
    on_event: Callable[[Event], None] | None = None,
    executor: Executor | None = None,
    **fields: Any,
) -> Job:
    """Look for what is wrong with a dataset; `report` of the job says it. fields: those of AuditSpec.

    Raises: SpecError: a field is wrong, or there is no such dataset. JobError: the audit failed.
    """
    from studio import specs

    values = {"dataset": dataset, **fields}
    spec = dataset if isinstance(dataset, specs.AuditSpec) else specs.parse(specs.AuditSpec, values)
    return _submit(spec, wait, on_event, executor)


def evaluate(
    run: str | Job | EvaluateSpec,
    *,
    wait: bool = True,
    on_event: Callable[[Event], None] | None = None,
    executor: Executor | None = None,
    **fields: Any,
) -> Job:
    """Measure a run's adapter beside its base. fields: those of EvaluateSpec.

    Raises: SpecError: a field is wrong. JobError: there is no such run, or the evaluation failed.
    """
    from studio import specs

    return _submit(_spec(specs.EvaluateSpec, run, fields), wait, on_event, executor)


def export(
    run: str | Job | ExportSpec,
    *,
    wait: bool = True,
    on_event: Callable[[Event], None] | None = None,
    executor: Executor | None = None,
    **fields: Any,
) -> Job:
    """Write a run's adapter, or the whole merged model, to a folder. fields: those of ExportSpec.

    Raises: SpecError: a field is wrong. JobError: there is no such run, or the export failed.
    """
    from studio import specs

    return _submit(_spec(specs.ExportSpec, run, fields), wait, on_event, executor)


def chat(
    message: str | list[dict[str, str]],
    *,
    adapter: str | Job | None = None,
    model: str | None = None,
    system: str | None = None,
    as_trained: bool = False,
    client: Any = None,
    **sampling: Any,
) -> str:
    """The answer to one message, or to a conversation of `{"role", "content"}` turns.

    adapter: a run, or `RUN@STEP` for one of its checkpoints. model: the base, where there is no adapter. as_trained:
    hold the base quantised as it was while training. client: the way to the server; None is this machine's own.
    sampling: fields of studio.specs.Sampling, such as temperature and max_tokens.
    Raises: ServingError: the chat server did not start, or did not answer.
    """
    import asyncio

    from studio import specs
    from studio.serving import voices

    if client is None:
        from studio.serving import client

    voice = voices.find(adapter.id if isinstance(adapter, Job) else adapter, base=model)
    turns = [{"role": "user", "content": message}] if isinstance(message, str) else list(message)
    address = client.ensure(voice.base, quantization=voice.precision(as_trained))
    request = (voice.model, voice.opening(system) + turns)
    return asyncio.run(voices.answer(client, address, request, specs.parse(specs.Sampling, sampling)))


def _submit(spec: Any, wait: bool, on_event: Callable[[Event], None] | None, executor: Executor | None) -> Job:
    from studio.jobs import control
    from studio.jobs.executors import local

    job = Job(control.submit(spec, executor=executor or local).id)
    return job.wait(on_event) if wait else job


def _spec(kind: type, run: Any, fields: dict[str, Any]) -> Any:
    from studio import specs

    if isinstance(run, kind):
        return run
    return specs.parse(kind, {"run": run.id if isinstance(run, Job) else run, **fields})
