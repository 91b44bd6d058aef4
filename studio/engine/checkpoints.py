"""Checkpoints that are read back only as they were written: each is sealed by a manifest, which is written last.

A folder without a manifest is half a save. One whose files are no longer what the manifest says is put aside under
another name, and the one before it is taken. Not here: what a checkpoint holds (transformers writes it), and when one
is made or removed (studio.engine.callbacks).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from studio.engine.best import STATE
from studio.errors import ModelError
from studio.home import write_atomically

MANIFEST = "manifest.json"
DAMAGED = "damaged-"
"""What the name of a folder begins with that was put aside."""
NEEDED = ("optimizer.pt", "scheduler.pt", STATE)
"""Without one of these, or the state of the random numbers, a trainer would begin that part anew without a word."""
_RANDOM = re.compile(r"rng_state(_\d+)?\.pth")


@dataclass(frozen=True)
class Checkpoint:
    """A folder with a manifest. facts: what the manifest says besides the files."""

    step: int
    folder: Path
    facts: dict[str, Any]


def seal(folder: Path, step: int, **facts: Any) -> None:
    """Flush every file to the disk, then write the manifest: size in bytes and SHA-256 of each, and the facts."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
    _flush(folder)
    write_atomically(folder / MANIFEST, json.dumps({"step": step, **facts, "files": files}, indent=1))
    _flush(folder)
    _flush(folder.parent)


def complete_checkpoints(checkpoints: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every checkpoint whose files are all there at their full size, ascending."""
    return [(each.step, each.folder) for each in _sealed(checkpoints) if _missing(each.folder) is None]


def newest_whole(checkpoints: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that verifies, and what is wrong with the newer ones, which are put aside.

    Raises: ModelError: there are checkpoints, and none of them verifies.
    """
    damaged: list[tuple[Checkpoint, str]] = []
    for found in reversed(_sealed(checkpoints)):
        fault = fault_of(found.folder) or _incomplete(found.folder)
        if fault is None:
            for each, _ in damaged:
                each.folder.rename(checkpoints / f"{DAMAGED}{each.folder.name}-{secrets.token_hex(2)}")
            return found, [f"The checkpoint at step {each.step} is damaged: {why}." for each, why in damaged]
        damaged.append((found, fault))
    if damaged:
        told = "; ".join(f"{each.folder.name}: {why}" for each, why in damaged)
        raise ModelError(
            f"No checkpoint in {checkpoints} can be trusted ({told}). Put the files back as they were, or start a new "
            "run; this one would begin anew without a word."
        )
    return None, []


def fault_of(folder: Path, pattern: str = "*") -> str | None:
    """What is not as the folder's manifest says; None if nothing is. pattern: of the files that are read to the end."""
    if fault := _missing(folder):
        return fault
    for name, wanted in _files(folder):
        if not fnmatch(name, pattern):
            continue
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != wanted["sha256"]:
                return f"{name} has other bytes than were written"
    return None


def _sealed(checkpoints: Path) -> list[Checkpoint]:
    """Those with a manifest, whatever it says, by the step in their name."""
    found = []
    for folder in checkpoints.glob("checkpoint-*"):
        number = folder.name.removeprefix("checkpoint-")
        if number.isdecimal() and (folder / MANIFEST).is_file():
            found.append(Checkpoint(int(number), folder, facts_of(folder)))
    return sorted(found, key=lambda each: each.step)


def facts_of(folder: Path) -> dict[str, Any]:
    """What a manifest says besides the files; nothing where it cannot be read."""
    try:
        said = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return {name: value for name, value in said.items() if name != "files"}
    except (OSError, ValueError, AttributeError):
        return {}


def _files(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"].items()


def _missing(folder: Path) -> str | None:
    try:
        for name, wanted in _files(folder):
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if (size := path.stat().st_size) != wanted["bytes"]:
                return f"{name} has {size:,} of {wanted['bytes']:,} bytes"
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        return f"its {MANIFEST} cannot be read ({type(error).__name__})"
    return None


def _incomplete(folder: Path) -> str | None:
    names = {name for name, _ in _files(folder)}
    absent = [name for name in NEEDED if name not in names]
    if not any(_RANDOM.fullmatch(name) for name in names):
        absent.append("rng_state.pth")
    return f"it was saved without {' and '.join(absent)}" if absent else None


def _flush(folder: Path) -> None:
    """Make the names in a folder last, where the system can do that."""
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(number)
    finally:
        os.close(number)
