"""One folder of full weights that plain transformers loads: base and adapter added up, rounded once.

Of a run that trained the whole model, its weights as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from studio.data.example import Message
from studio.engine import carried
from studio.engine.evaluation.classifying import pad_token
from studio.engine.generate import Request, complete
from studio.engine.held import is_whole
from studio.engine.models.load import DTYPES, load_base, recorded
from studio.engine.models.memory import fits
from studio.engine.models.quantised import scheme_of
from studio.engine.models.resolve import allows_code, resolve
from studio.engine.trained import ADAPTER, Trained, open_trained, phases
from studio.errors import ExportError
from studio.events import Emit, Measured, Note, Phase
from studio.specs import ExportSpec, Sampling, TrainSpec, ability
from studio.templates import generation_prompt, stop_tokens


def write_merged(
    spec: ExportSpec, trained: TrainSpec, adapter: Path, folder: Path, emit: Emit, stopping: Callable[[], bool]
) -> None:
    """Merge in fp32 into the full-precision base, write in `spec.dtype`, load it again and compare the answers.

    Raises: ExportError: the method's adapters cannot be merged, there is not enough memory, or the merged weights are
        not numbers.
    """
    if not ability(trained.method).merge:
        raise ExportError(
            f"{spec.run} was trained with {trained.method.kind}, whose adapters are more than a change of weights, so "
            "they cannot be merged. Export the adapter alone with format adapter."
        )
    base = resolve(trained.model.name, trained.model.revision, progress=phases(emit))
    if scheme := scheme_of(base):
        raise ExportError(
            f"{trained.model.name} is quantised itself ({scheme}), so there is no full-precision base to merge into. "
            "Export the adapter alone with format adapter."
        )
    if allows_code(base):
        raise ExportError(
            f"{trained.model.name} runs code of its own, which a merged folder would be without. Export the adapter "
            "alone with format adapter."
        )
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
    labels = recorded(adapter, "labels")
    opened = open_trained(trained, adapter, emit, dtype="fp32")
    if labels:
        pad_token(opened.model, opened.tokenizer)  # without one, what is written would refuse batches
    before = _answers(opened.model, opened, trained, labels)
    if stopping():
        return
    model = opened.model if is_whole(adapter) else _merged(opened.model, adapter, emit)
    emit(Phase(name="write"))
    _write(model.to(DTYPES[spec.dtype]), opened, folder, trained.template.system, emit)
    del model
    if stopping():
        return
    emit(Phase(name="check"))
    after = _answers(load_base(folder, dtype=spec.dtype, labels=labels, trained=True), opened, trained, labels)
    _compare(before, after, opened, spec, trained, labels, emit)


def _merged(model: Any, adapter: Path, emit: Emit) -> Any:
    emit(Phase(name="merge"))
    try:
        merged = model.merge_and_unload(safe_merge=True, adapter_names=[ADAPTER])
    except ValueError as error:  # safe_merge found NaN or infinity
        raise ExportError(f"{adapter} cannot be merged: {error}") from error
    _untie(merged)
    return merged


def _untie(model: Any) -> None:
    """Say so in the config where head and embeddings share their weights no more, or only one would be written."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and model.config.tie_word_embeddings and not torch.equal(head.weight, embeddings.weight):
        model.config.tie_word_embeddings = False


def _compare(
    before: list[list[int]],
    after: list[list[int]],
    opened: Trained,
    spec: ExportSpec,
    trained: TrainSpec,
    labels: list[str] | None,
    emit: Emit,
) -> None:
    """Say how many sample answers are the same, token by token, and show those that are not."""
    same = [one == other for one, other in zip(before, after, strict=True)]
    emit(Measured(subject="export", scores={"prompts": float(len(same)), "same_answers": float(sum(same))}))
    for prompt, one, other in zip(trained.evaluation.prompts, before, after, strict=True):
        if one != other:
            said, says = (labels[each[0]] if labels else opened.text_tokenizer.decode(each) for each in (one, other))
            emit(Note(text=f"Rounded to {spec.dtype}, “{prompt}” is answered “{says}”; in fp32 it was “{said}”."))


def _write(model: Any, opened: Trained, folder: Path, system: str | None, emit: Emit) -> None:
    pad = opened.tokenizer.pad_token_id
    if model.can_generate():
        carried.end_answers(model.generation_config, opened.template, opened.text_tokenizer, pad)
    model.config.pad_token_id = pad
    model.save_pretrained(folder, max_shard_size="4GB")
    carried.write_tokenizer(folder, opened.tokenizer, opened.text_tokenizer, opened.template, system, emit)


@torch.inference_mode()
def _answers(model: Any, opened: Trained, trained: TrainSpec, labels: list[str] | None) -> list[list[int]]:
    """Greedy token ids for the run's own sample prompts; of a classifier the number of the likeliest label."""
    model.eval()
    texts = trained.evaluation.prompts
    if labels:
        rows = (torch.tensor([opened.text_tokenizer.ids(text)], device=model.device) for text in texts)
        return [[int(model(input_ids=row).logits.argmax())] for row in rows]
    stop = frozenset(stop_tokens(opened.template, opened.text_tokenizer))
    sampling = Sampling(max_tokens=trained.evaluation.max_new_tokens)
    prompts = [
        generation_prompt(
            [Message("user", text)], opened.template, opened.text_tokenizer, system=trained.template.system
        )
        for text in texts
    ]
    return complete(model, [Request(prompt, None, sampling, stop) for prompt in prompts]) if prompts else []
