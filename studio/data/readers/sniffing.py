"""What a file really holds. Its content decides; where its name says something else, a warning names both.

Not here: reading rows.
"""

from __future__ import annotations

import codecs
import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from studio.data import compression, decoding, sources
from studio.data.compression import Compression
from studio.data.readers import arrow, encodings, tables
from studio.errors import DataError

_SAMPLE = 1024**2
_LINES = 20

_NAMES = {
    "json": "one JSON value",
    "jsonl": "one JSON object a line",
    "csv": "a table with separators",
    "tsv": "a table with tabs",
    "parquet": "a parquet file",
    "arrow": "an Arrow file",
    "txt": "plain text",
    "": "plain",
    "gzip": "packed with gzip",
    "zstd": "packed with zstd",
}
_REFUSED = {
    b"PARE": ("an encrypted parquet file", "Write it without encryption."),
    b"FEA1": ("a Feather file of the first version", "Write it again as .parquet, or with a newer pyarrow."),
    b"PK\x03\x04": ("a zip archive", sources.INSTEAD[".zip"]),
    b"PK\x05\x06": ("an empty zip archive", sources.INSTEAD[".zip"]),
    b"Rar!": ("a rar archive", sources.INSTEAD[".rar"]),
    b"7z\xbc\xaf": ("a 7z archive", sources.INSTEAD[".7z"]),
    b"BZh": ("packed with bzip2", sources.INSTEAD[".bz2"]),
    b"\xfd7zXZ": ("packed with xz", sources.INSTEAD[".xz"]),
    b"\x04\x22\x4d\x18": ("packed with lz4", sources.INSTEAD[".xz"]),
    b"\xd0\xcf\x11\xe0": ("a document of an old Office program", sources.INSTEAD[".xls"]),
    b"%PDF": ("a PDF document", sources.INSTEAD[".pdf"]),
    b"{\\rtf": ("a rich text document", sources.INSTEAD[".docx"]),
    b"SQLite format 3": ("an SQLite database", sources.INSTEAD[".sqlite"]),
    b"\x93NUMPY": ("a numpy array", sources.INSTEAD[".npy"]),
    b"\x89HDF": ("an HDF5 file", sources.INSTEAD[".npy"]),
    b"ORC": ("an ORC file", sources.INSTEAD[".orc"]),
    b"Obj\x01": ("an Avro file", sources.INSTEAD[".avro"]),
    b"GGUF": ("a model's weights", "Choose it as a model instead."),
    b"\x7fELF": ("a program", "Choose a file that holds rows."),
    b"\x89PNG": ("a picture", "Only text is learned here."),
    b"\xff\xd8\xff": ("a picture", "Only text is learned here."),
    b"GIF8": ("a picture", "Only text is learned here."),
    b"RIFF": ("a picture, a sound or a film", "Only text is learned here."),
    b"ID3": ("a sound", "Only text is learned here."),
    b"OggS": ("a sound or a film", "Only text is learned here."),
}
_IN_ZIP = (
    (b"xl/", "an Excel workbook", ".xlsx"),
    (b"word/", "a Word document", ".docx"),
    (b"data.pkl", "a pickle", ".pt"),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05][\x00-\xff]")
_MARKUP = re.compile(r"\s*<(!doctype|html|head|body|\?xml)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Sniffed:
    """What a file holds: kind is json, jsonl, csv, tsv, parquet, arrow or txt. warnings: where its name is wrong."""

    kind: str
    compression: Compression
    warnings: tuple[str, ...] = ()


def sniff(path: Path) -> Sniffed:
    """What a file holds, by its first MiB.

    Raises: DataError: it cannot be read, or holds something that is refused, by its name and with what to do.
    """
    promised, promised_packing = sources.named(path)
    if not promised and path.suffix.lower() not in compression.SUFFIXES and not path.exists():
        raise sources.unknown_kind(path)
    with sources.open_checked(path) as file:
        packing = compression.detect(file.read(4))
        start = _start(file, packing, path)
    if not start:
        kind = promised or "txt"
        return Sniffed(kind, packing)
    refuse_foreign(start, path.name)
    kind = _binary(start) or _textual(start, promised, path)
    if not kind:
        raise sources.unknown_kind(path)
    warnings = []
    if packing != promised_packing:
        warnings.append(f"{path.name} is {_NAMES[packing]}, although its name says otherwise; it is read as it is.")
    if promised and kind != promised:
        warnings.append(
            f"{path.name} is called {_ending(path)}, but holds {_NAMES[kind]}; the content decides how it is read."
        )
    return Sniffed(kind, packing, tuple(warnings))


def refuse_foreign(start: bytes, name: str) -> None:
    """Refuse by name what is no data, or not in a form that is read."""
    what, instead = next((refused for magic, refused in _REFUSED.items() if start.startswith(magic)), ("", ""))
    if start.startswith(b"PK"):
        for inside, better, suffix in _IN_ZIP:
            if inside in start[:65536]:
                what, instead = better, sources.INSTEAD[suffix]
    if _PICKLE.match(start):
        what, instead = "a pickle", sources.INSTEAD[".pkl"]
    if start[257:262] == b"ustar":
        what, instead = "a tar archive", sources.INSTEAD[".tar"]
    if compression.detect(start):
        what, instead = "packed twice", "Unpack it once."
    if what:
        raise DataError(f"{name} is {what}, which is not read. {instead}")


def _start(file: BinaryIO, packing: Compression, path: Path) -> bytes:
    size = file.seek(0, 2)
    file.seek(0)
    start = b""
    for chunk in compression.chunks(file, packing, name=path.name, size=size):
        start += chunk
        if len(start) >= _SAMPLE:
            break
    return start[:_SAMPLE]


def _binary(start: bytes) -> str:
    if start.startswith(b"PAR1"):
        return "parquet"
    return "arrow" if start.startswith((arrow.FILE_MAGIC, arrow.STREAM_MAGIC)) else ""


def _textual(start: bytes, promised: str, path: Path) -> str:
    """The kind of a text; where nothing speaks against it, the one that its name promises."""
    if promised in ("parquet", "arrow") and not _is_text(start):
        return promised  # its reader says what is wrong with it
    text = b"".join(encodings.utf8(iter([start]), path.name)).decode("utf-8", "ignore").lstrip()
    if _MARKUP.match(text):
        raise DataError(f"{path.name} is a page in HTML or XML, which is not read. {sources.INSTEAD['.html']}")
    if text[:1] in ("[", "{") and (kind := _json(text, promised)):
        return kind
    return _table_or_text(text, promised)


def _json(text: str, promised: str) -> str:
    """json or jsonl, for text that starts like it; empty where it does not go on like it."""
    lines = [line.strip() for line in text.split("\n", _LINES)[:_LINES] if line.strip()]
    objects = [isinstance(decoding.parse(line).value, dict) for line in lines[:-1] or lines]
    if text.startswith("["):
        # One row a line may wrongly be a list; a list of objects is an array under another name
        if promised == "jsonl" and not re.match(r"\[\s*([{\]]|$)", text):
            return "jsonl"
        is_array = promised in ("json", "jsonl") or re.match(r"\[\s*[{\]]", text)
        return "json" if is_array else ""
    if promised == "jsonl":
        # an object over several lines is one JSON value, unless some other line is a row of its own
        return "json" if _is_spread(lines, objects) else "jsonl"
    if promised == "json":
        return "jsonl" if len(lines) > 1 and (objects[0] or sum(objects) > 1) else "json"
    if objects[0] and all(objects):
        return "jsonl"
    return "json" if _is_spread(lines, objects) and re.match(r'\{\s*"', text) else ""


def _is_spread(lines: list[str], objects: list[bool]) -> bool:
    return len(lines) > 1 and lines[0] in ("{", "{}") and not any(objects)


def _table_or_text(text: str, promised: str) -> str:
    lines = [line for line in text.split("\n", _LINES)[:_LINES] if line.strip()]
    if promised in ("csv", "txt", "") or (promised == "tsv" and any("\t" in line for line in lines)):
        return promised
    if _is_table(lines):
        return "tsv" if tables.delimiter_of(lines[0]) == "\t" else "csv"
    return "txt" if promised in ("parquet", "arrow") else promised


def _is_table(lines: list[str]) -> bool:
    """Whether lines have the same number of cells, more than one, and none of them is JSON."""
    if len(lines) < 2 or any(line.lstrip().startswith(("{", "[")) for line in lines):
        return False
    try:
        records = list(csv.reader(lines[:-1], delimiter=tables.delimiter_of(lines[0]), strict=True))
    except csv.Error:
        return False
    return len({len(record) for record in records}) == 1 and len(records[0]) > 1


def _is_text(start: bytes) -> bool:
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return True
    return b"\0" not in start[:4096]


def _ending(path: Path) -> str:
    return "".join(path.suffixes[-2:] if path.suffix.lower() in compression.SUFFIXES else path.suffixes[-1:])
