"""What the user points at, as files: one, several, a folder or a pattern, each a plain local file of a known kind.

Nothing is fetched and no link is followed. Not here: what is in a file (readers), datasets of the hub (hub).
"""

from __future__ import annotations

import difflib
import errno
import glob
import os
import re
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from studio.data import compression
from studio.errors import DataError

SUFFIXES = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".txt": "txt",
    ".md": "txt",
    ".text": "txt",
}
"""How a name ends, and what it promises. Each may be followed by .gz or .zst."""

KINDS = (*SUFFIXES, *compression.SUFFIXES)
"""What the name of a file that can be read ends with."""

MAX_FILES = 10_000
"""Files of one dataset."""

INSTEAD = {
    ".zip": "Unpack it, and add the files in it.",
    ".tar": "Unpack it, and add the files in it.",
    ".tgz": "Unpack it, and add the files in it.",
    ".7z": "Unpack it, and add the files in it.",
    ".rar": "Unpack it, and add the files in it.",
    ".xz": "Unpack it, or pack it with gzip or zstd.",
    ".bz2": "Unpack it, or pack it with gzip or zstd.",
    ".xlsx": "Open it in a spreadsheet program and save the sheet as .csv.",
    ".xls": "Open it in a spreadsheet program and save the sheet as .csv.",
    ".ods": "Open it in a spreadsheet program and save the sheet as .csv.",
    ".docx": "Save its text as .txt.",
    ".pdf": "Save its text as .txt.",
    ".html": "Save its text as .txt.",
    ".htm": "Save its text as .txt.",
    ".xml": "Convert its records to .jsonl.",
    ".yaml": "Convert its records to .jsonl.",
    ".yml": "Convert its records to .jsonl.",
    ".pkl": "A pickle can run code when it is read. Convert it to .jsonl or .parquet where it was made.",
    ".pickle": "A pickle can run code when it is read. Convert it to .jsonl or .parquet where it was made.",
    ".pt": "A pickle can run code when it is read. Convert it to .jsonl or .parquet where it was made.",
    ".npy": "Convert it to .jsonl or .parquet.",
    ".npz": "Convert it to .jsonl or .parquet.",
    ".orc": "Convert it to .parquet.",
    ".avro": "Convert it to .parquet or .jsonl.",
    ".db": "Export the table as .csv.",
    ".sqlite": "Export the table as .csv.",
}
"""What to do with a file that is not read."""

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|.*::", re.DOTALL)
_PATTERN = re.compile(r"[*?\[]")
_PROSE = (".txt", ".md", ".text")
_ABOUT = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})
"""Files that describe the dataset beside them and hold no rows of it."""


def find(source: str | Path | Sequence[str | Path], *, kinds: Collection[str] = tuple(SUFFIXES)) -> list[Path]:
    """The files that a source means, each once.

    A folder stands for all files of known kinds in it and in its folders, sorted; a pattern such as `data/*.jsonl` for
    those that fit. Hidden files, and files that describe a dataset, are left out of both, and so are .txt and .md where
    there are rows of another kind. kinds: the suffixes that are wanted, without that of a compression.

    Raises: DataError: something is not there, is no plain local file, or is of no known kind.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    if not sources:
        raise DataError("No file was given.")
    found = [path for each in sources for path in _files(each, kinds)]
    if len(found) > MAX_FILES:
        raise DataError(f"{_listed(sources)} holds {len(found):,} files; at most {MAX_FILES:,} make one dataset.")
    return list(dict.fromkeys(found))


def named(path: Path) -> tuple[str, compression.Compression]:
    """The kind and the compression that a file's name promises; either is empty where it promises none."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    packed = compression.SUFFIXES.get(suffixes[-1], "") if suffixes else ""
    rest = suffixes[:-1] if packed else suffixes
    return SUFFIXES.get(rest[-1], "") if rest else "", packed


def unknown_kind(path: Path) -> DataError:
    """The refusal of a file by its name."""
    suffix = path.suffix.lower()
    if suffix in compression.SUFFIXES:
        return DataError(f"{path.name}: the name does not tell what is in it. Call it .jsonl{suffix}, or as it fits.")
    known = f"Known: {', '.join(SUFFIXES)}, also with {' or '.join(compression.SUFFIXES)}."
    return DataError(f"{path.name}: files of kind '{suffix}' cannot be read. {INSTEAD.get(suffix, known)}")


def open_checked(path: Path) -> BinaryIO:
    """A plain file, open for reading. A link is not followed, and a pipe not waited for.

    Raises: DataError: it is something else, or cannot be opened.
    """
    if not hasattr(os, "O_NOFOLLOW") and path.is_symlink():
        raise _link(path)
    flags = sum(getattr(os, name, 0) for name in ("O_RDONLY", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC"))
    try:
        file = open(os.open(path, flags), "rb")  # noqa: PTH123, SIM115 - pathlib cannot open a descriptor
    except ValueError as error:
        raise DataError(f"{str(path)!r} is no name of a file.") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _link(path) from error
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise DataError(f"{path} is not a plain file.")
    return file


def _files(source: str | Path, kinds: Collection[str]) -> list[Path]:
    text = str(source)
    if not text.strip() or "\0" in text:
        raise DataError(f"{text!r} is no name of a file.")
    if _ADDRESS.match(text):
        raise DataError(f"{text} is an address. Nothing is fetched: download the file yourself, then add it.")
    path = Path(text).expanduser()
    mode = _mode(path)
    if mode is None and _PATTERN.search(text):
        return _matching(str(path), kinds)
    if mode is None:
        raise DataError(f"{path} does not exist.{_nearest(path)}")
    if stat.S_ISLNK(mode):
        raise _link(path)
    if stat.S_ISDIR(mode):
        return _wanted(_walk(path), path, kinds)
    if not stat.S_ISREG(mode):
        raise DataError(f"{path} is not a plain file.")
    if not _is_wanted(path, kinds):
        raise unknown_kind(path)
    return [path]


def _mode(path: Path) -> int | None:
    """What a path is, links not followed; None if there is nothing."""
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _matching(pattern: str, kinds: Collection[str]) -> list[Path]:
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    if not found:
        raise DataError(f"No file fits the pattern {pattern}.")
    base = Path(re.split(r"[*?\[]", pattern, maxsplit=1)[0] + "x").parent
    return _wanted((Path(each) for each in found), base, kinds, pattern)


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def _wanted(paths: Iterator[Path], base: Path, kinds: Collection[str], said: str = "") -> list[Path]:
    """The files of known kinds among some. A link that leads out of the base is refused, one within it is left out."""
    known = []
    for path in paths:
        if not _is_wanted(path, kinds) or path.name in _ABOUT or path.is_dir():
            continue
        real = path.resolve()
        if not real.is_relative_to(base.resolve()):
            raise _link(path)
        if not path.is_symlink() and real == base.resolve() / path.relative_to(base) and path.is_file():
            known.append(path)
    rows = [path for path in known if not _is_prose(path)]
    if not known:
        raise DataError(f"{said or base} holds no file that can be read. Known: {', '.join(kinds)}.")
    return rows or known


def _is_wanted(path: Path, kinds: Collection[str]) -> bool:
    return any(_bare(path).endswith(kind) for kind in kinds)


def _is_prose(path: Path) -> bool:
    return _bare(path).endswith(_PROSE)


def _bare(path: Path) -> str:
    """The name without the suffix of a compression."""
    return (path.stem if path.suffix.lower() in compression.SUFFIXES else path.name).lower()


def _nearest(path: Path) -> str:
    try:
        names = [each.name for each in path.parent.iterdir() if not each.name.startswith(".")]
    except OSError:
        return "" if path.parent.exists() else f" Neither does the folder {path.parent}."
    near = difflib.get_close_matches(path.name, names, n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def _link(path: Path) -> DataError:
    return DataError(f"{path} is a link. Add the file that it points to.")


def _raise(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be read: {error.strerror or error}.") from error


def _listed(sources: Sequence[str | Path]) -> str:
    return str(sources[0]) if len(sources) == 1 else f"{sources[0]} and what was given with it"
