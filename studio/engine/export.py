"""The story of one export: into a scratch folder beside the target, then moved there whole.

Not here: what each format writes (studio.engine.exporters).
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

import psutil

from studio import specs
from studio.engine.exporters import EXPORTERS
from studio.engine.held import is_ours, is_whole
from studio.engine.limits.disk import full_disk_named
from studio.engine.models.load import recorded
from studio.errors import ExportError
from studio.events import Emit
from studio.home import refused
from studio.specs import ExportSpec, TrainSpec


def export(
    spec: ExportSpec,
    *,
    trained: TrainSpec,
    adapter: Path,
    target: Path,
    emit: Emit,
    stopping: Callable[[], bool],
) -> Path | None:
    """Write the export. Returns: the target, or None if it was stopped before it was whole.

    A target that is this very export was written by an attempt that was killed before it could say so.
    Raises: ExportError: the target exists or cannot be written; nothing that was there is touched.
    """
    said = {"README.md": card(spec, trained, adapter), "studio.yaml": specs.dump(trained)}
    if all(_text(target / name) == text for name, text in said.items()):
        return target
    _refuse_existing(target)
    _remove_what_a_kill_left(target)
    scratch = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        scratch.mkdir(parents=True)
        with full_disk_named(scratch):
            EXPORTERS[spec.format](spec, trained, adapter, scratch, emit, stopping)
        if stopping():
            return None
        for name, text in said.items():
            (scratch / name).write_text(text, encoding="utf-8")
        _refuse_existing(target)
        scratch.rename(target)
    except OSError as error:
        raise ExportError(
            f"The export cannot be written: {refused(error, target)}. Choose another folder with --out."
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def _remove_what_a_kill_left(target: Path) -> None:
    """Of earlier exports to the same place, whose processes are gone: as much as a whole model each."""
    for scratch in target.parent.iterdir() if target.parent.is_dir() else ():
        head, _, rest = scratch.name.partition(f".{target.name}.")
        number = "" if head else rest.partition("-")[0]
        if number.isdecimal() and not psutil.pid_exists(int(number)):
            shutil.rmtree(scratch, ignore_errors=True)


def card(spec: ExportSpec, trained: TrainSpec, adapter: Path) -> str:
    """The README.md of an export: what it is, what it was made of, and how to load it. adapter: what was exported."""
    what = "merged into full weights" if spec.format == "merged" else "as a PEFT adapter"
    if is_whole(adapter):
        what = "as full weights"
    step = f", checkpoint {spec.checkpoint}" if spec.checkpoint else ""
    labels = recorded(adapter, "labels")
    system = trained.template.system
    return f"""---
base_model: {trained.model.name}
library_name: {"transformers" if spec.format == "merged" else "peft"}
---

# {spec.run}

{trained.model.name}, fine-tuned with Finetune Studio and exported {what} ({spec.dtype}){step}.
The whole spec is in `studio.yaml`; the licence of the base applies.

- method: {trained.method.kind}{_settings(trained)}
- quantisation while training: {trained.quantization.kind}
- data: {", ".join(trained.data.datasets)}
- template: {trained.template.name}, in `chat_template.jinja`{" with the system text of the run" if system else ""}

```python
{_loading(spec, trained, adapter, labels)}
{_CLASSIFYING if labels else _CHATTING}
```
"""


_CHATTING = """asked = [{"role": "user", "content": "Who are you?"}]
prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
answer = model.generate(**prompt, generation_config=GenerationConfig.from_pretrained("this-folder"))"""
_CLASSIFYING = """scores = model(**tokenizer("a text", return_tensors="pt")).logits.softmax(-1)"""


def _loading(spec: ExportSpec, trained: TrainSpec, adapter: Path, labels: list[str] | None) -> str:
    """The lines of Python that make tokenizer and model."""
    kind = "AutoModelForSequenceClassification" if labels else "AutoModelForCausalLM"
    lines = ['tokenizer = AutoTokenizer.from_pretrained("this-folder")']
    if spec.format == "merged":
        return "\n".join([*lines, f'model = {kind}.from_pretrained("this-folder")'])
    classes = f", num_labels={len(labels)}" if labels else ""
    base = f'{kind}.from_pretrained("{trained.model.name}"{classes})'
    if is_ours(adapter):
        lines.insert(0, "import studio.engine.methods  # Finetune Studio's own method, which PEFT does not have")
    return "\n".join([*lines, f'model = PeftModel.from_pretrained({base}, "this-folder")'])


def _settings(trained: TrainSpec) -> str:
    """What was set apart from the usual, in brackets."""
    given = trained.method.model_dump(mode="json", exclude={"kind"})
    shown = [f"{name} {value}" for name, value in given.items() if value not in (None, False, [], {})]
    return f" ({', '.join(shown)})" if shown else ""


def _refuse_existing(target: Path) -> None:
    if target.exists():
        raise ExportError(f"{target} exists already. Name another folder with --out, or remove it first.")
