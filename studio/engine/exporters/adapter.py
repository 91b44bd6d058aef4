"""The PEFT adapter alone, as `PeftModel.from_pretrained` reads it, with the tokenizer and template of the run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from studio.engine.models.load import BASE_RECORD, check_base, load_tokenizer
from studio.engine.models.resolve import resolve
from studio.engine.trained import phases
from studio.errors import ExportError
from studio.events import Emit, Phase
from studio.specs import ExportSpec, TrainSpec
from studio.templates import resolve as resolve_template

FILES = ("adapter_config.json", "adapter_model.safetensors", BASE_RECORD)


def write_adapter(
    spec: ExportSpec, trained: TrainSpec, adapter: Path, folder: Path, emit: Emit, stopping: Callable[[], bool]
) -> None:
    """Fill the folder. Raises: ExportError: the adapter lacks a file."""
    base = resolve(trained.model.name, trained.model.revision, progress=phases(emit))
    check_base(adapter, base)
    emit(Phase(name="write"))
    for name in FILES:
        if not (adapter / name).is_file():
            if name == BASE_RECORD:
                continue  # a checkpoint has none
            raise ExportError(f"{adapter} is not a whole adapter: {name} is missing.")
        shutil.copyfile(adapter / name, folder / name)
    tokenizer, text_tokenizer = load_tokenizer(base)
    tokenizer.chat_template = resolve_template(trained.template.name, text_tokenizer).portable
    tokenizer.save_pretrained(folder)
