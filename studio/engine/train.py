"""The story of one training run, from a spec to an adapter on disk.

Not here: the job around it (studio.jobs.worker), and what each part does in detail.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, set_seed

from studio import hardware
from studio.data.example import Message
from studio.engine.best import Log, Watcher, best, given_up, log_of
from studio.engine.callbacks import Keeper, Reporter, Sampler, Stopper, rotate
from studio.engine.checkpoints import Checkpoint, complete_checkpoints, fault_of, newest_whole, seal
from studio.engine.checks import check_alone, check_with_base, refuse, with_extra
from studio.engine.curve import loss_picture
from studio.engine.divergence import RATE, Guard, Slower
from studio.engine.evaluation.examined import examined, kept
from studio.engine.fast.rules import holds_narrow
from studio.engine.limits.disk import Room, full_disk_named
from studio.engine.limits.preflight import preflight
from studio.engine.limits.recovery import train_through
from studio.engine.methods import Context, Tuning, tuning
from studio.engine.methods.tuning import keep_state
from studio.engine.models.arithmetic import measure_once
from studio.engine.models.load import check_base, device, load_base, load_tokenizer, record_origin, template_of
from studio.engine.models.quantize import keep_trainable
from studio.engine.models.resolve import peek, resolve
from studio.engine.reporting import kept_in
from studio.engine.rewards import Judge
from studio.engine.rows.conversations import Rows
from studio.engine.stages import STAGES, Setup
from studio.engine.start import Start, gather, go_on, going_on, start_faults
from studio.engine.trained import phases
from studio.errors import DataError, ModelError
from studio.events import Emit, Note, Phase, Plan
from studio.home import write_atomically
from studio.specs import TrainSpec
from studio.templates import Template, TextTokenizer, generation_prompt, stop_tokens
from studio.templates import resolve as resolve_template
from studio.templates.library import AUTO


def train(
    spec: TrainSpec,
    *,
    checkpoints: Path,
    adapter: Path,
    record: Path,
    emit: Emit,
    stopping: Callable[[], bool],
    code: Path | None = None,
    judge: Judge | None = None,
    starts: Callable[[], Sequence[Path]] = tuple,
    rate: float = 1.0,
) -> Path | None:
    """Train, from the newest whole checkpoint if there is one.

    Args:
        checkpoints: folder for checkpoint-N folders. adapter: where the finished adapter goes. record: a JSON file.
        emit: told every event. stopping: asked after each step; yes means save and end.
        code: a Python file with a reward function, which only somebody at the shell can name.
        judge: the reward model that the spec names.
        starts: the folders that start.adapters names, in its order. Only asked at the first attempt.
        rate: share of the spec's learning rate, for a run that goes on after it diverged.
    Returns: the adapter's folder, or None if the run was stopped before its end.
    Raises: StudioError: something the user can act on.
    """
    if rate != 1.0:
        emit(Note(text=f"Trains at {rate:.4g} times the learning rate of the spec."))
    measure_once()
    machine = hardware.detect()
    choices = hardware.choices(spec, machine)
    stage = STAGES[spec.stage.kind]
    faults = check_alone(spec, machine, choices, stage.config())
    emit(Phase(name="resolve"))
    if faults and not peek(spec.model.name).ready:
        refuse(faults)  # a download would be in vain
    base = resolve(spec.model.name, spec.model.revision, progress=phases(emit))
    found = _newest(checkpoints, base, emit)
    tokenizer, text_tokenizer = load_tokenizer(base)
    earlier = gather(spec.start.adapters, starts, checkpoints.with_name("start"))
    template = _template(spec, text_tokenizer, found, earlier)
    task = "SEQ_CLS" if stage.labels else "CAUSAL_LM"
    faults += check_with_base(spec, base, machine, fresh=not earlier)
    refuse([*faults, *start_faults(spec, earlier, base, template, task)])
    spec = with_extra(spec, stage.config())
    method = stage.method(spec, tuning(going_on(spec.method) if earlier else spec.method))
    reports = kept_in(checkpoints.with_name("reports"), spec.training.report_to)
    with reports, _scratch(checkpoints.with_name(".rows")) as place:
        rows = stage.rows(spec, text_tokenizer, template, emit, place=place, stopping=stopping)
        if rows is None:
            return None
        _refuse_other_rows(rows, found)
        _tell_about(rows, spec, emit)
        if stopping():
            return None
        emit(Phase(name="load"))
        labels = stage.labels(spec) if stage.labels else None
        context = _context(spec, base, text_tokenizer, rows, task=task)
        set_seed(spec.training.seed)  # a head and an adapter start at random
        weights = earlier[0].folder if earlier and earlier[0].whole else base
        dtype, whole = choices["model.dtype"].value, weights != base
        narrowed = holds_narrow(spec, (dtype, choices["training.precision"].value), gpu=machine.gpu is not None)
        model = load_base(
            weights, dtype=dtype, quantization=spec.quantization, labels=labels, trained=whole, narrowed=narrowed
        )
        keep_trainable(model)
        if earlier and not whole:
            model = go_on(model, earlier, context)
            emit(Note(text=f"Training goes on in {' and '.join(spec.start.adapters)}, which keeps its own shape."))
        else:
            model = method.attach(model, context)
        tokenizer.chat_template = template.portable_with(spec.template.system)

        def finish(folder: Path) -> None:
            facts = {} if labels is None else {"labels": labels}
            record_origin(folder, base, spec.model.name, template, method=spec.method.kind, **facts)

        def complete(checkpoint: Path) -> None:
            keep_state(method, model, checkpoint)
            finish(checkpoint)

        keeper = Keeper(checkpoints, spec.training.save_total_limit, complete, emit, {"data": rows.hashes, RATE: rate})
        sampler = Sampler(spec, *_prompts(spec, template, text_tokenizer), text_tokenizer.decode, emit)
        told_by = Reporter(emit, likelihood=spec.stage.kind in ("sft", "pretrain"))
        watching = [
            told_by,
            *([] if labels else [sampler]),
            Stopper(stopping),
            Guard(checkpoints),
            Slower(rate, checkpoints),
            Room(checkpoints, stopping, emit),
            keeper,
        ]
        if rows.held is not None:
            watching.append(Watcher(spec, emit))
        trainer = stage.trainer(
            Setup(
                spec,
                model=model,
                tuning=method,
                tokenizer=tokenizer,
                text_tokenizer=text_tokenizer,
                template=template,
                rows=rows,
                checkpoints=checkpoints,
                choices=choices,
                callbacks=[*watching, *method.callbacks(context)],
                emit=emit,
                code=code,
                judge=judge,
            )
        )
        trainer.remove_callback(PrinterCallback)  # steps are events; the log is for what else is said
        if path := getattr(trainer, "path", None):
            sampler.give_back = path.arena.drop
        plan = _plan(spec, method, trainer, rows, machine, choices)
        write_atomically(record, json.dumps(plan.model_dump(mode="json") | kept(record), indent=1))
        emit(plan)
        if found is None:
            examined(stage.examine, trainer, rows, when="before", record=record, emit=emit)
        if spec.training.preflight:
            preflight(trainer, steps=plan.total_steps, emit=emit)
        emit(Phase(name="train"))
        with full_disk_named(checkpoints):
            if not _trained(trainer, spec, checkpoints, found, emit):
                return None
        examined(stage.examine, trainer, rows, when="after", record=record, emit=emit)
        emit(Phase(name="save"))
        with full_disk_named(adapter.parent):
            _save(method, trainer.model, adapter, finish, trainer.state.global_step)
        return adapter


def _newest(checkpoints: Path, base: Path, emit: Emit) -> Checkpoint | None:
    """The checkpoint to go on from. Raises: ModelError: none can be trusted, or it was trained on another base."""
    found, damaged = newest_whole(checkpoints)
    for sentence in damaged:
        emit(Note(text=sentence))
    if found is not None:
        check_base(found.folder, base)
    return found


def _trained(trainer: Any, spec: TrainSpec, checkpoints: Path, found: Checkpoint | None, emit: Emit) -> bool:
    """Train to the end, from a checkpoint if there is one. Returns: whether it was reached."""
    patience = spec.training.early_stopping
    newest = str(found.folder) if found else None
    if found:
        emit(Note(text=f"Resumed from the checkpoint at step {found.step}."))
    log = log_of(found.folder) if found else []
    rotate(checkpoints, spec.training.save_total_limit, log)  # a kill may have come before
    if found and (found.step >= _total_steps(trainer) or given_up(log, patience)):
        trainer._load_from_checkpoint(newest)  # it had come to its end; transformers would take a step more
        trainer.state.global_step = trainer.state.max_steps = found.step
    else:
        train_through(trainer, newest, emit)
        log = trainer.state.log_history
    _draw(log, spec, checkpoints.with_name("loss.svg"))
    if trainer.state.global_step < trainer.state.max_steps and not given_up(log, patience):
        return False
    if spec.training.keep_best:
        _take_up_best(trainer, log, checkpoints, emit)
    return True


def _take_up_best(trainer: Any, log: Log, checkpoints: Path, emit: Emit) -> None:
    top = best(log)
    place = dict(complete_checkpoints(checkpoints)).get(top.step) if top else None
    if place is None:
        emit(Note(text="No validation gave a number, so the outcome is the last step's."))
        return
    if fault := fault_of(place):
        raise ModelError(f"The checkpoint with the best {top} is damaged: {fault}. Start a new run.")
    trainer._load_from_checkpoint(str(place))
    emit(Note(text=f"The outcome is the checkpoint with the best {top}."))


def _draw(log: Log, spec: TrainSpec, place: Path) -> None:
    steps = [(entry["step"], entry["loss"]) for entry in log if "loss" in entry]
    validated = [(entry["step"], entry["eval_loss"]) for entry in log if "eval_loss" in entry]
    unit = "nats per token" if spec.stage.kind in ("sft", "pretrain") else ""
    write_atomically(place, loss_picture(steps, validated, unit=unit))


def _context(spec: TrainSpec, base: Path, tokenizer: TextTokenizer, rows: Rows, *, task: str) -> Context:
    def glimpse(count: int) -> Iterator[dict[str, Any]]:
        for row in islice(rows.train, count):
            # rows of the stages that learn from preferences come in parts
            parts = (row[name] for name in ("input_ids", "prompt_ids", "chosen_ids", "completion_ids") if name in row)
            ids = torch.tensor([list(chain.from_iterable(parts))], device=device())
            yield {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    return Context(spec, base, tokenizer.ids, glimpse, task)


def _template(
    spec: TrainSpec, tokenizer: TextTokenizer, found: Checkpoint | None, earlier: Sequence[Start]
) -> Template:
    """A run that goes on keeps the template that it began with, and so does one that goes on from another."""
    name = spec.template.name
    if earlier and name == AUTO and not found:
        return template_of(earlier[0].folder, name, tokenizer)
    if spec.stage.kind == "classify" and name == AUTO and not tokenizer.chat_template:
        name = "default"  # nothing is written with it, and many a model that classifies has none of its own
    return template_of(found.folder, name, tokenizer) if found else resolve_template(name, tokenizer)


@contextmanager
def _scratch(place: Path) -> Iterator[Path]:
    """A folder that is gone afterwards. After a kill it stays, and the next attempt empties it."""
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _refuse_other_rows(rows: Rows, found: Checkpoint | None) -> None:
    """A run that goes on must go on with the rows that it began with."""
    before = found.facts.get("data", {}) if found else {}
    for name, digest in rows.hashes.items():
        if before.get(name, digest) != digest:
            raise DataError(
                f"Dataset '{name}' has other rows by now than when this run was started. Start a new run with it."
            )


def _tell_about(rows: Rows, spec: TrainSpec, emit: Emit) -> None:
    for sentence in rows.told:
        emit(Note(text=sentence))
    refused = f"were refused by the template and are left out; the first because: {rows.refusal.removesuffix('.')}"
    long = f"are longer than {spec.data.max_length} tokens"
    end = "their end" if spec.stage.kind == "pretrain" else "the end of their answer"
    for what, text in (
        ("faulty", "could not be read and are left out; the Data tab lists them"),
        ("unwritable", refused),
        ("cut_answer", f"{long} and lose {end}"),
        ("cut_turns", f"{long} and lose their oldest turns"),
        ("cut_source", f"{long} and lose the middle of what is asked"),
        ("dropped", f"{long} and are left out"),
        ("skipped", f"in all have no supervised token within {spec.data.max_length} tokens and are left out"),
        ("escaped", "hold special tokens of the model in what somebody wrote; they are encoded as plain text"),
    ):
        if count := rows.total(what):
            emit(Note(text=f"{count} rows {text}."))
    if spec.data.weights:
        parts = ", ".join(f"{counts.mixed} of {name}" for name, counts in rows.counts.items())
        emit(Note(text=f"The mix has {len(rows.train)} rows: {parts}."))


def _prompts(spec: TrainSpec, template: Template, tokenizer: TextTokenizer) -> tuple[list[list[int]], frozenset[int]]:
    prompts = [
        generation_prompt([Message("user", text)], template, tokenizer, system=spec.template.system)
        for text in spec.evaluation.prompts
    ]
    return prompts, frozenset(stop_tokens(template, tokenizer))


def _plan(spec: TrainSpec, method: Tuning, trainer: Any, rows: Rows, machine: hardware.Hardware, choices: Any) -> Plan:
    trainable, total = parameter_counts(trainer.model)
    if method.count is not None:
        trainable = method.count(trainer.model)
    return Plan(
        total_steps=_total_steps(trainer),
        rows=len(rows.train),
        validation_rows=len(rows.held) if rows.held is not None else 0,
        skipped_rows=rows.total("skipped"),
        effective_batch_size=spec.training.batch_size * spec.training.accumulation,
        trainable_parameters=trainable,
        total_parameters=total,
        device=str(machine),
        choices={field: choice.value for field, choice in choices.items()},
        data=rows.hashes,
        counts=rows.plain_counts(),
        path="fast" if getattr(trainer, "path", None) else "trl",
        path_why=getattr(trainer, "why_not_fast", "this stage has a step of its own"),
        kernels=getattr(getattr(trainer, "path", None), "kernels", ()),
    )


def parameter_counts(model: Any) -> tuple[int, int]:
    """(trainable, all). A 4-bit weight is stored two to a byte and counted as what it stands for."""
    trainable = total = 0
    for parameter in model.parameters():
        count = parameter.numel() * (2 if type(parameter).__name__ == "Params4bit" else 1)
        total += count
        trainable += count if parameter.requires_grad else 0
    return trainable, total


def _total_steps(trainer: Any) -> int:
    """As the trainer will compute it, so that the plan is right before the first step."""
    if trainer.args.max_steps > 0:
        return trainer.args.max_steps
    batches = len(trainer.get_train_dataloader())
    per_epoch = max(1, -(-batches // trainer.args.gradient_accumulation_steps))
    return math.ceil(per_epoch * trainer.args.num_train_epochs)


def _save(method: Tuning, model: Any, adapter: Path, finish: Callable[[Path], None], step: int) -> None:
    """Write the outcome beside its place, then move it there, so that it is whole or absent."""
    scratch = adapter.with_name(f".{adapter.name}")
    shutil.rmtree(scratch, ignore_errors=True)
    method.save(model, scratch)
    finish(scratch)
    seal(scratch, step)
    shutil.rmtree(adapter, ignore_errors=True)
    scratch.replace(adapter)
