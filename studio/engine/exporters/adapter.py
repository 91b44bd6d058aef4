"""The PEFT adapter alone, as `PeftModel.from_pretrained` reads it, with what the run's answers need beside it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from studio.engine import carried
from studio.engine.fitting import check_adapter
from studio.engine.held import CONFIG, WEIGHTS, is_whole
from studio.engine.models.load import RECORD, load_tokenizer, template_of
from studio.engine.models.resolve import resolve
from studio.engine.trained import phases
from studio.errors import ExportError
from studio.events import Emit, Phase
from studio.specs import ExportSpec, TrainSpec

FILES = (CONFIG, WEIGHTS, RECORD)


def write_adapter(
    spec: ExportSpec, trained: TrainSpec, adapter: Path, folder: Path, emit: Emit, stopping: Callable[[], bool]
) -> None:
    """Fill the folder. Raises: ExportError: the run left no adapter, or one that lacks a file."""
    if is_whole(adapter):
        raise ExportError(
            f"{spec.run} trained the whole model, so there is no adapter to export. Export it with format merged: its "
            "weights are written as they are."
        )
    base = resolve(trained.model.name, trained.model.revision, progress=phases(emit))
    check_adapter(adapter, base)
    emit(Phase(name="write"))
    for name in FILES:
        if not (adapter / name).is_file():
            if name == RECORD:
                continue  # a checkpoint has none
            raise ExportError(f"{adapter} is not a whole adapter: {name} is missing.")
        shutil.copyfile(adapter / name, folder / name)
    tokenizer, text_tokenizer = load_tokenizer(base)
    template = template_of(adapter, trained.template.name, text_tokenizer)
    settings = carried.generation_of(base)
    carried.end_answers(settings, template, text_tokenizer, tokenizer.pad_token_id)
    settings.save_pretrained(folder)
    carried.write_tokenizer(folder, tokenizer, text_tokenizer, template, trained.template.system, emit)
