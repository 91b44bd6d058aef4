"""A finished export as text and markup: how to load it, and which files it holds. All names are escaped here.

Not here: the export itself (studio.engine.export).
"""

from __future__ import annotations

import html
import os
from pathlib import Path

from studio.home import home
from studio.jobs.monitor import JobView
from studio.specs import BUNDLED_MODEL
from studio.ui.texts import table

LISTED_FILES = 50


def snippet(view: JobView, path: str) -> str:
    """Python that loads the export without the studio."""
    if view.spec and view.spec["format"] == "adapter":
        return (
            "from peft import PeftModel\n"
            "from transformers import AutoModelForCausalLM\n"
            f"base = AutoModelForCausalLM.from_pretrained({_base(view)!r})\n"
            f"model = PeftModel.from_pretrained(base, {path!r})"
        )
    return (
        "from transformers import pipeline\n"
        f'chat = pipeline("text-generation", model={path!r})\n'
        'messages = [{"role": "user", "content": "Who are you?"}]\n'
        'print(chat(messages, max_new_tokens=64)[0]["generated_text"][-1]["content"])'
    )


def files(path: str, language: str) -> str:
    """The files of the folder with their sizes, and the size of all of them."""
    words = table(language)
    found = _files(Path(path))
    if not found:
        return f'<p class="problem">{html.escape(words["export.gone"])}</p>'
    total = words["export.files"].format(count=len(found), size=size(sum(each for _, each in found)))
    rows = "".join(f"<tr><td>{html.escape(name)}</td><td>{size(each)}</td></tr>" for name, each in found[:LISTED_FILES])
    return f"<table class='figures-table files'><caption>{html.escape(total)}</caption>{rows}</table>"


def size(count: int) -> str:
    """Bytes with a unit: 812 B, 4.1 KiB, 270.3 MiB."""
    amount, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"


def _base(view: JobView) -> str:
    """Where the base of the exported run lies, as from_pretrained wants it."""
    from studio.errors import StudioError
    from studio.jobs.folder import find

    try:
        name = find(view.spec["run"]).read_spec().model.name
    except StudioError:  # the run was removed; the export is still good
        return "the base model"
    return str(home().models / name) if name == BUNDLED_MODEL else name


def _files(folder: Path) -> list[tuple[str, int]]:
    """(path inside the folder, bytes), by name. Links are not followed."""
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            file = Path(place) / name
            found.append((file.relative_to(folder).as_posix(), file.lstat().st_size))
    return sorted(found)
