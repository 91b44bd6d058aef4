"""The story of one training run, from a spec to an adapter on disk.

Not here: the job around it (studio.jobs.worker), and what each part does in detail.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from studio import hardware
from studio.data.example import Message
from studio.engine.callbacks import Keeper, Reporter, Sampler, Stopper, complete_checkpoints
from studio.engine.methods import Context, Tuning, tuning
from studio.engine.models.load import device, load_base, load_tokenizer, record_origin, template_of
from studio.engine.models.quantize import keep_trainable
from studio.engine.models.resolve import resolve
from studio.engine.rows import Rows
from studio.engine.stages import STAGES, Setup
from studio.engine.trained import phases
from studio.errors import DataError, Fault, SpecError
from studio.events import Emit, Note, Phase, Plan
from studio.home import write_atomically
from studio.specs import TrainSpec
from studio.templates import Template, TextTokenizer, generation_prompt, stop_tokens
from studio.templates import resolve as resolve_template


def train(
    spec: TrainSpec,
    *,
    checkpoints: Path,
    adapter: Path,
    record: Path,
    emit: Emit,
    stopping: Callable[[], bool],
    code: Path | None = None,
) -> Path | None:
    """Train, from the newest whole checkpoint if there is one.

    Args:
        checkpoints: folder for checkpoint-N folders. adapter: where the finished adapter goes. record: a JSON file.
        emit: told every event. stopping: asked after each step; yes means save and end.
        code: a Python file with reward functions, which only somebody at the shell can name.
    Returns: the adapter's folder, or None if the run was stopped before its end.
    Raises: StudioError: something the user can act on.
    """
    machine = hardware.detect()
    choices = hardware.choices(spec, machine)
    stage, method = STAGES[spec.stage.kind], tuning(spec.method)
    _refuse_what_cannot_work(spec, machine)
    emit(Phase(name="resolve"))
    base = resolve(spec.model.name, spec.model.revision, progress=phases(emit))
    _refuse_cutoff_beyond(spec, base)
    tokenizer, text_tokenizer = load_tokenizer(base)
    template = _template(spec, text_tokenizer, checkpoints)
    with _scratch(checkpoints.with_name(".rows")) as place:
        rows = stage.rows(spec, text_tokenizer, template, emit, place=place, stopping=stopping)
        if rows is None:
            return None
        _refuse_other_rows(rows, record, checkpoints)
        _tell_about(rows, spec, emit)
        if stopping():
            return None
        emit(Phase(name="load"))
        labels = stage.labels(spec) if stage.labels else None
        context = _context(spec, base, text_tokenizer, rows, task="CAUSAL_LM" if labels is None else "SEQ_CLS")
        set_seed(spec.training.seed)  # a head and an adapter start at random
        model = load_base(base, dtype=choices["model.dtype"].value, quantization=spec.quantization, labels=labels)
        keep_trainable(model)
        model = method.attach(model, context)
        tokenizer.chat_template = template.portable_with(spec.template.system)

        def finish(folder: Path) -> None:
            facts = {} if labels is None else {"labels": labels}
            record_origin(folder, base, spec.model.name, template, method=spec.method.kind, **facts)

        keeper = Keeper(checkpoints, spec.training.save_total_limit, finish, emit)
        sampler = Sampler(spec, *_prompts(spec, template, text_tokenizer), text_tokenizer.decode, emit)
        watching = [Reporter(emit), *([] if labels else [sampler]), Stopper(stopping), keeper]
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
            )
        )
        plan = _plan(spec, trainer, rows, machine, choices)
        write_atomically(record, json.dumps(plan.model_dump(mode="json"), indent=1))
        emit(plan)
        emit(Phase(name="train"))
        found = complete_checkpoints(checkpoints)
        if found:
            emit(Note(text=f"Resumed from the checkpoint at step {found[-1][0]}."))
        trainer.train(resume_from_checkpoint=str(found[-1][1]) if found else None)
        if trainer.state.global_step < trainer.state.max_steps:
            return None
        emit(Phase(name="save"))
        _save(method, trainer.model, adapter, finish)
        return adapter


def _context(spec: TrainSpec, base: Path, tokenizer: TextTokenizer, rows: Rows, *, task: str) -> Context:
    def glimpse(count: int) -> Iterator[dict[str, Any]]:
        for row in islice(rows.train, count):
            ids = torch.tensor([row["input_ids"]], device=device())
            yield {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    return Context(spec, base, tokenizer.ids, glimpse, task)


def _template(spec: TrainSpec, tokenizer: TextTokenizer, checkpoints: Path) -> Template:
    """A run that goes on keeps the template that it began with."""
    found = complete_checkpoints(checkpoints)
    name = spec.template.name
    return template_of(found[-1][1], name, tokenizer) if found else resolve_template(name, tokenizer)


@contextmanager
def _scratch(place: Path) -> Iterator[Path]:
    """A folder that is gone afterwards. After a kill it stays, and the next attempt empties it."""
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _refuse_other_rows(rows: Rows, record: Path, checkpoints: Path) -> None:
    """A run that goes on must go on with the rows that it began with."""
    if not record.is_file() or not complete_checkpoints(checkpoints):
        return
    before = json.loads(record.read_text(encoding="utf-8")).get("data", {})
    for name, digest in rows.hashes.items():
        if before.get(name, digest) != digest:
            raise DataError(
                f"Dataset '{name}' has other rows by now than when this run was started. Start a new run with it."
            )


def _refuse_what_cannot_work(spec: TrainSpec, machine: hardware.Hardware) -> None:
    """Combinations that only this machine rules out; all of them at once, before anything loads."""
    faults = []
    if machine.gpu is None:
        for field, value in (("training.precision", spec.training.precision), ("model.dtype", spec.model.dtype)):
            if value == "fp16":
                faults.append(Fault(field, "fp16 needs a GPU. Set it to auto, bf16 or fp32."))
    elif not machine.bf16 and spec.training.precision == "bf16":
        faults.append(Fault("training.precision", f"{machine.gpu} has no bf16. Set it to auto, fp16 or fp32."))
    if faults:
        raise SpecError(faults)


def _refuse_cutoff_beyond(spec: TrainSpec, base: Path) -> None:
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if positions and spec.data.max_length > positions:
        raise SpecError(
            [
                Fault(
                    "data.max_length",
                    f"is {spec.data.max_length}, but {spec.model.name} has {positions} positions. Lower it to that.",
                )
            ]
        )


def _tell_about(rows: Rows, spec: TrainSpec, emit: Emit) -> None:
    for sentence in rows.told:
        emit(Note(text=sentence))
    refused = f"were refused by the template and are left out; the first because: {rows.refusal.removesuffix('.')}"
    long = f"are longer than {spec.data.max_length} tokens"
    for what, text in (
        ("faulty", "could not be read and are left out; the Data tab lists them"),
        ("unwritable", refused),
        ("cut_answer", f"{long} and lose the end of their answer"),
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


def _plan(spec: TrainSpec, trainer: Any, rows: Rows, machine: hardware.Hardware, choices: Any) -> Plan:
    trainable, total = parameter_counts(trainer.model)
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


def _save(method: Tuning, model: Any, adapter: Path, finish: Callable[[Path], None]) -> None:
    """Write the outcome beside its place, then move it there, so that it is whole or absent."""
    scratch = adapter.with_name(f".{adapter.name}")
    shutil.rmtree(scratch, ignore_errors=True)
    method.save(model, scratch)
    finish(scratch)
    shutil.rmtree(adapter, ignore_errors=True)
    scratch.replace(adapter)
