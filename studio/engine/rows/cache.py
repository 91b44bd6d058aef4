"""Tokenised rows of earlier runs, to be used again by a run whose rows would be the very same.

An entry is a folder under STUDIO_HOME/cache/rows, named by the hash of all that decides about the rows: the tokenizer,
the template, the datasets and how they are read, the settings, and the code itself. A run takes its files as hard
links, so nobody can take them away from it. Not here: how rows are made (studio.engine.rows.conversations).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from studio.data.readers import sha256
from studio.data.registry import Dataset
from studio.errors import DataError
from studio.home import CHECKOUT, home
from studio.specs import TrainSpec
from studio.templates import Policy, Template, TextTokenizer

MOST_BYTES = 10 * 1024**3
MOST_SHARE = 0.1
"""Of the disk: all entries together take no more than this, nor than MOST_BYTES; the longest unused go first."""

_MANIFEST = "manifest.json"
_SCRATCH = "."
"""How the names of folders begin that are not yet whole, or are on their way out."""
_ABANDONED_S = 24 * 3600
_CODE = ("data", "sandbox", "specs", "templates", "engine/rows/conversations.py", "engine/rows/cache.py")
"""What of the studio decides how rows become tokens."""
_LIBRARIES = ("jinja2", "tokenizers", "numpy", "pyarrow")
_ORDER_ONLY = {"datasets", "weights", "repeat"}
"""Settings of the data that change no row, or that are named otherwise."""


def key(spec: TrainSpec, tokenizer: TextTokenizer, template: Template, datasets: Sequence[Dataset]) -> str:
    """The name of the entry that holds the rows of a run."""
    decides = {
        "tokenizer": [tokenizer.backend.to_str(), tokenizer.specials, tokenizer.chat_template],
        "template": asdict(template),
        # such a template writes another text each day
        "day": str(date.today()) if "strftime_now" in template.text else "",
        "policy": asdict(Policy.of(spec.template, spec.data)),
        "stage": spec.stage.kind,
        "data": spec.data.model_dump(mode="json", exclude=_ORDER_ONLY),
        "datasets": [[each.name, each.sha256, each.rows, asdict(each.how)] for each in datasets],
        "libraries": [version(name) for name in _LIBRARIES],
        "code": _code(),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode("ascii")).hexdigest()


def fetch(key: str, place: Path) -> dict[str, Any] | None:
    """Put the files of an entry into a folder. Returns: the facts that were kept with them; None: there is none.

    Each file is hashed anew: that takes a hundredth of the time of making it, and rows that a disk has damaged would
    be learned without a word. A damaged entry is thrown away.
    """
    entry = _entries() / key
    manifest = entry / _MANIFEST
    if not manifest.is_file():
        if entry.is_dir():  # it got its name as a whole, so somebody took that away
            _throw_away(entry)
        return None
    try:
        about = json.loads(manifest.read_bytes())
        for name, (size, digest) in about["files"].items():
            target = place / name
            _link(entry / name, target)
            if target.stat().st_size != size or sha256(target) != digest:
                raise ValueError(f"{name} is not as it was")
        facts = about["facts"]
    except (DataError, OSError, ValueError, KeyError, TypeError, AttributeError):
        # damaged, or thrown away by another run in this moment
        for path in place.iterdir():
            path.unlink()
        _throw_away(entry)
        return None
    with contextlib.suppress(OSError):
        os.utime(manifest)
    return facts


def keep(key: str, place: Path, facts: dict[str, Any], *, most_bytes: int | None = None) -> None:
    """Keep the files of a folder under a key, with facts about them. If there is no room for them, nothing is kept.

    most_bytes: of all entries together.
    """
    folder = _entries()
    most = _bound(folder) if most_bytes is None else most_bytes
    files = sorted(path for path in place.iterdir() if path.is_file())
    if sum(path.stat().st_size for path in files) > most:
        return
    scratch = folder / f"{_SCRATCH}{key[:16]}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        scratch.mkdir()
        for path in files:
            _link(path, scratch / path.name)
        named = {path.name: (path.stat().st_size, sha256(path)) for path in files}
        (scratch / _MANIFEST).write_text(json.dumps({"files": named, "facts": facts}), encoding="utf-8")
        for path in scratch.iterdir():
            _flush(path)
        scratch.rename(folder / key)
    except (DataError, OSError):
        # another run was first, or the disk is full: the rows of this one are in its own folder in any case
        shutil.rmtree(scratch, ignore_errors=True)
    _make_room(folder, most, spare=key)


def _make_room(folder: Path, most: int, *, spare: str) -> None:
    """Throw away the entries that were not used for longest until the others fit, and what crashed runs left."""
    for path in folder.glob(f"{_SCRATCH}*"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - _ABANDONED_S:
                shutil.rmtree(path, ignore_errors=True)
    entries = sorted(_sizes(folder))
    total = sum(size for _, size, _ in entries)
    for _, size, entry in entries:
        if total <= most:
            return
        if entry.name != spare:
            _throw_away(entry)
            total -= size


def _sizes(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """(when it was last used, bytes, the entry) of each."""
    for entry in folder.iterdir():
        if entry.name.startswith(_SCRATCH) or not entry.is_dir():
            continue
        with contextlib.suppress(OSError):  # gone in this moment
            size = sum(path.stat().st_size for path in entry.iterdir())
            manifest = entry / _MANIFEST
            yield manifest.stat().st_mtime if manifest.is_file() else 0.0, size, entry


def _throw_away(entry: Path) -> None:
    """Under another name first, so that nobody finds half of it."""
    aside = entry.with_name(f"{_SCRATCH}{entry.name[:16]}.{secrets.token_hex(4)}")
    with contextlib.suppress(OSError):
        entry.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _bound(folder: Path) -> int:
    return min(MOST_BYTES, int(shutil.disk_usage(folder).total * MOST_SHARE))


def _entries() -> Path:
    folder = home().cache / "rows"
    folder.mkdir(exist_ok=True)
    return folder


def _link(source: Path, target: Path) -> None:
    """A second name for a file, or a copy where the disk has no such names. Nobody writes into either."""
    try:
        target.hardlink_to(source)
    except (OSError, NotImplementedError):
        shutil.copyfile(source, target)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@cache
def _code() -> str:
    """Hash of the source text of what decides."""
    studio = CHECKOUT / "studio"
    paths = [path for name in _CODE for path in ([studio / name] if name.endswith(".py") else _sources(studio / name))]
    together = hashlib.sha256()
    for path in paths:
        together.update(f"{path.relative_to(studio).as_posix()}\n".encode() + path.read_bytes())
    return together.hexdigest()


def _sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))
