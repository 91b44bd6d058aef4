"""One folder of full weights that plain transformers loads: base and adapter added up, rounded once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from studio.data.example import Message
from studio.engine import carried
from studio.engine.generate import Request, complete
from studio.engine.models.load import DTYPES, load_base
from studio.engine.models.memory import fits
from studio.engine.models.resolve import resolve
from studio.engine.trained import ADAPTER, Trained, open_trained, phases
from studio.errors import ExportError
from studio.events import Emit, Measured, Note, Phase
from studio.specs import ExportSpec, Sampling, TrainSpec
from studio.templates import generation_prompt, stop_tokens


def write_merged(
    spec: ExportSpec, trained: TrainSpec, adapter: Path, folder: Path, emit: Emit, stopping: Callable[[], bool]
) -> None:
    """Merge in fp32 into the full-precision base, write in `spec.dtype`, load it again and compare the answers.

    Raises: ExportError: not enough memory, or the merged weights are not numbers.
    """
    base = resolve(trained.model.name, trained.model.revision, progress=phases(emit))
    if not fits(base, 4):
        raise ExportError(
            f"Merging {trained.model.name} in fp32 needs more memory than is free. Close other programs, or export the "
            "adapter alone with format adapter."
        )
    if trained.quantization.kind != "none":
        emit(
            Note(
                text=f"The run trained on a {trained.quantization.kind} base. The adapter is merged into the "
                "full-precision base, because rounding the sum to 4 bits again would change the answers."
            )
        )
    opened = open_trained(trained, adapter, emit, dtype="fp32")
    before = _answers(opened.model, opened, trained)
    if stopping():
        return
    emit(Phase(name="merge"))
    try:
        model = opened.model.merge_and_unload(safe_merge=True, adapter_names=[ADAPTER])
    except ValueError as error:  # safe_merge found NaN or infinity
        raise ExportError(f"{adapter} cannot be merged: {error}") from error
    emit(Phase(name="write"))
    _write(model.to(DTYPES[spec.dtype]), opened, folder, trained.template.system, emit)
    del model
    if stopping():
        return
    emit(Phase(name="check"))
    after = _answers(load_base(folder, dtype=spec.dtype), opened, trained)
    _compare(before, after, opened, spec, trained, emit)


def _compare(
    before: list[list[int]],
    after: list[list[int]],
    opened: Trained,
    spec: ExportSpec,
    trained: TrainSpec,
    emit: Emit,
) -> None:
    """Say how many sample answers are the same, token by token, and show those that are not."""
    same = [one == other for one, other in zip(before, after, strict=True)]
    emit(Measured(subject="export", scores={"prompts": float(len(same)), "same_answers": float(sum(same))}))
    for prompt, one, other in zip(trained.evaluation.prompts, before, after, strict=True):
        if one != other:
            said, says = opened.text_tokenizer.decode(one), opened.text_tokenizer.decode(other)
            emit(Note(text=f"Rounded to {spec.dtype}, “{prompt}” is answered “{says}”; in fp32 it was “{said}”."))


def _write(model: Any, opened: Trained, folder: Path, system: str | None, emit: Emit) -> None:
    pad = opened.tokenizer.pad_token_id
    carried.end_answers(model.generation_config, opened.template, opened.text_tokenizer, pad)
    model.config.pad_token_id = pad
    model.save_pretrained(folder, max_shard_size="4GB")
    carried.write_tokenizer(folder, opened.tokenizer, opened.text_tokenizer, opened.template, system, emit)


def _answers(model: Any, opened: Trained, trained: TrainSpec) -> list[list[int]]:
    """Greedy token ids for the run's own sample prompts."""
    stop = frozenset(stop_tokens(opened.template, opened.text_tokenizer))
    sampling = Sampling(max_tokens=trained.evaluation.max_new_tokens)
    prompts = [
        generation_prompt(
            [Message("user", text)], opened.template, opened.text_tokenizer, system=trained.template.system
        )
        for text in trained.evaluation.prompts
    ]
    with torch.inference_mode():
        return complete(model.eval(), [Request(prompt, None, sampling, stop) for prompt in prompts]) if prompts else []
