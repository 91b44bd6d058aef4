"""A folder of data as LLaMA-Factory describes it: every entry of its dataset_info.json, in our words.

The documented defaults also hold where a `columns` or `tags` block names only some of its keys. Our own key `studio`
adds a title and the like. Not here: reading rows (studio.data.readers), fetching from a hub (studio.data.hub), which
happens only when the user asks for it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.data import decoding, formats
from studio.data.fields import kind
from studio.data.hub import HUB_ID
from studio.data.turns import OPENAI, SHAREGPT
from studio.errors import DataError, unknown

FILE_NAME = "dataset_info.json"
MAX_BYTES = 16 * 1024**2
LISTED_FAULTS = 40

TEXTS = (
    *("file_name", "file_sha1", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name"),
    *("formatting", "subset", "split", "folder", "revision", "media_dir"),
)
KEYS = (*TEXTS, "ranking", "num_samples", "columns", "tags", "studio")
SOURCES = ("file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
FORMATTINGS = ("alpaca", "sharegpt", "openai")

TURN_COLUMNS = {"messages": "conversations"}
PROMPT_COLUMNS = {"prompt": "instruction", "query": "input", "response": "output"}
RANKING_COLUMNS = {"chosen": "chosen", "rejected": "rejected"}
MEDIA = ("images", "videos", "audios")
COLUMNS = (
    *("prompt", "query", "response", "history", "messages", "system", "tools"),
    *(*MEDIA, "chosen", "rejected", "kto_tag"),
)
ABOUT = ("title", "title_zh", "language", "licence", "description", "format")

RENAMED = {
    "kto": {"kto_tag": "label"},
    "text": {"prompt": "text"},
    "classification": {"prompt": "text", "response": "label"},
}
"""Columns of the description that play a part of another name in our format."""
_USUAL_PROMPTS = ("instruction", "prompt", "question", "query")
"""A lone `prompt` column is plain text to learn, as documented for pre-training, unless its name says otherwise."""
_READABLE = {".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".feather", ".ipc", ".txt", ".text"}
_ONE_KIND = {".jsonl": ".json", ".ndjson": ".json", ".feather": ".arrow", ".ipc": ".arrow"}

_SHA1 = re.compile(r"[0-9a-fA-F]{40}")
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Entry:
    """One described dataset.

    file: its file, or its folder of files, inside the folder of the description. hub: its id on the Hugging Face hub.
    format, columns (part -> column) and tags are ours. about: our key `studio`, without its format.
    problem: why it cannot be used here; empty if it can.
    """

    name: str
    file: Path | None = None
    hub: str | None = None
    subset: str | None = None
    split: str = "train"
    folder: str | None = None
    revision: str | None = None
    num_samples: int | None = None
    sha1: str = ""
    format: str = "alpaca"
    columns: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)
    problem: str = ""


def read(folder_or_file: Path) -> list[Entry]:
    """The entries of a description, in the order of the file.

    Raises: DataError: there is no description, or it is not in LLaMA-Factory's shape; every fault of it is listed.
    """
    path = folder_or_file / FILE_NAME if folder_or_file.is_dir() else folder_or_file
    listing = _listing(path)
    faults = [fault for name, values in listing.items() for fault in _faults(name, values)]
    if faults:
        more = [f"… and {len(faults) - LISTED_FAULTS} more."] if len(faults) > LISTED_FAULTS else []
        raise DataError("\n".join([f"{path.name} cannot be used as it is.", *faults[:LISTED_FAULTS], *more]))
    return [_entry(name, _without_nulls(values), path.parent) for name, values in listing.items()]


def sha1_problem(entry: Entry) -> str:
    """What differs from the stated SHA-1, in a sentence. Empty: nothing, or none is stated, or there is no file."""
    if not entry.sha1 or entry.file is None:
        return ""
    if entry.file.is_dir():
        return f"Dataset '{entry.name}' states a file_sha1, but {entry.file.name} is a folder. Remove file_sha1."
    try:
        with entry.file.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()
    except OSError as error:
        return f"{entry.file} cannot be read: {error.strerror or error}."
    if found == entry.sha1.lower():
        return ""
    return (
        f"{entry.file.name} has the SHA-1 {found}, but dataset '{entry.name}' states {entry.sha1.lower()}. "
        "Get the stated file again, or correct file_sha1."
    )


# --- The file ---


def _listing(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} has more than {MAX_BYTES // 1024**2} MiB, too much for a description of datasets.")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text. Save it as UTF-8.") from error
    parsed = decoding.parse(text.strip())
    if parsed.fault:
        raise DataError(f"{path} {parsed.fault}")
    if not isinstance(parsed.value, dict):
        raise DataError(f"{path} must hold an object of datasets by name, but holds {kind(parsed.value)}.")
    if {"features", "splits", "builder_name"} & set(parsed.value):
        raise DataError(
            f"{path} was written by the datasets library and describes one saved dataset, not a folder of them. "
            "Choose its .arrow or .parquet files."
        )
    return parsed.value


# --- Faults of shape ---


def _faults(name: str, values: Any) -> Iterator[str]:
    where = f"dataset '{name}'"
    if not name.strip() or _CONTROL.search(name):
        yield f"The name {name!r} cannot be a dataset's name."
    if not isinstance(values, dict):
        yield f"D{where[1:]} must be an object with keys such as file_name, but is {kind(values)}."
        return
    values = {key: value for key, value in values.items() if value is not None}
    yield from _unknown_keys(values, KEYS, where)
    yield from (_wrong(key, where, "text", values[key]) for key in TEXTS if not isinstance(values.get(key, ""), str))
    yield from _block_faults(values, "columns", COLUMNS, where)
    yield from _block_faults(values, "tags", SHAREGPT, where)
    yield from _block_faults(values, "studio", ABOUT, where)
    yield from _value_faults(values, where)


def _block_faults(values: Mapping[str, Any], block: str, known: Collection[str], where: str) -> Iterator[str]:
    inner = values.get(block, {})
    if not isinstance(inner, dict):
        yield _wrong(block, where, "an object", inner)
        return
    yield from _unknown_keys(inner, known, f"{block} of {where}")
    for key in (key for key in known if not isinstance(inner.get(key), str | None)):
        yield _wrong(f"{block}.{key}", where, "text", inner[key])


def _value_faults(values: Mapping[str, Any], where: str) -> Iterator[str]:
    """Values of the right type that mean nothing."""
    if not any(key in values for key in SOURCES):
        yield f"D{where[1:]} has no source. Name its file with 'file_name', or its hub id with 'hf_hub_url'."
    if not isinstance(values.get("ranking", False), bool):
        yield _wrong("ranking", where, "true or false", values["ranking"])
    samples = values.get("num_samples", 1)
    if not isinstance(samples, int) or isinstance(samples, bool):
        yield _wrong("num_samples", where, "a whole number", samples)
    elif samples < 1:
        yield f"'num_samples' of {where} is {samples}. Give a number from 1 on, or remove it for all rows."
    formatting = values.get("formatting", "alpaca")
    if isinstance(formatting, str) and formatting not in FORMATTINGS:
        yield _unknown("formatting", formatting, FORMATTINGS, where)
    sha1 = values.get("file_sha1", "")
    if isinstance(sha1, str) and sha1 and not _SHA1.fullmatch(sha1):
        yield f"'file_sha1' of {where} is {decoding.shown(sha1)}, but a SHA-1 has 40 digits from 0 to f."
    about = values.get("studio")
    ours = about.get("format") if isinstance(about, dict) else None
    if isinstance(ours, str) and ours not in formats.FORMATS:
        yield _unknown("studio.format", ours, formats.FORMATS, where)


def _unknown_keys(values: Mapping[str, Any], known: Collection[str], where: str) -> Iterator[str]:
    return (_unknown("key", key, known, where) for key in values if key not in known)


def _unknown(what: str, word: str, known: Collection[str], where: str) -> str:
    return unknown(what, word, known).replace(f"'{word}'.", f"'{word}' of {where}.", 1)


def _wrong(key: str, where: str, wanted: str, value: Any) -> str:
    return f"'{key}' of {where} must be {wanted}, but is {kind(value)}: {decoding.shown(value)}."


def _without_nulls(values: Mapping[str, Any]) -> dict[str, Any]:
    """null means absent, except among the columns, where it means that no column plays the part."""
    return {key: value for key, value in values.items() if value is not None}


# --- From an entry of the file to ours ---


def _entry(name: str, values: Mapping[str, Any], base: Path) -> Entry:
    about = _without_nulls(values.get("studio", {}))
    meaning = about.pop("format", "") or _meaning(values)
    file, file_problem = _file(values.get("file_name"), base)
    return Entry(
        name=name,
        file=file,
        hub=values.get("hf_hub_url"),
        subset=values.get("subset"),
        split=values.get("split", "train"),
        folder=values.get("folder"),
        revision=values.get("revision"),
        num_samples=values.get("num_samples"),
        sha1=values.get("file_sha1", ""),
        format=meaning,
        columns=_columns(values, meaning),
        tags=_tags(values, meaning),
        about=about,
        problem=_source_problem(values, file_problem) or _reading_problem(values),
    )


def _meaning(values: Mapping[str, Any]) -> str:
    """Our format for formatting, ranking and kto_tag together."""
    stated = {part for part, column in values.get("columns", {}).items() if column}
    if values.get("ranking"):
        return "preference"
    if "kto_tag" in stated:
        return "kto"
    if values.get("formatting", "alpaca") != "alpaca":
        return values["formatting"]
    return "text" if stated == {"prompt"} and values["columns"]["prompt"] not in _USUAL_PROMPTS else "alpaca"


def _columns(values: Mapping[str, Any], meaning: str) -> dict[str, str]:
    usual = PROMPT_COLUMNS if values.get("formatting", "alpaca") == "alpaca" else TURN_COLUMNS
    named = {**usual, **(RANKING_COLUMNS if values.get("ranking") else {}), **values.get("columns", {})}
    parts, names = formats.get(meaning).columns, RENAMED.get(meaning, {})
    return {names.get(key, key): named[key] for key in COLUMNS if named.get(key) and names.get(key, key) in parts}


def _tags(values: Mapping[str, Any], meaning: str) -> dict[str, str]:
    """The stated tags; with them the documented ones where our format has no usual words but goes by the turns."""
    formatting = values.get("formatting", "alpaca")
    stated = _without_nulls(values.get("tags", {}))
    if formatting == "alpaca" or not stated:
        return {}
    return stated if meaning == formatting else {**(OPENAI if formatting == "openai" else SHAREGPT), **stated}


# --- What stands in the way ---


def _source_problem(values: Mapping[str, Any], file_problem: str) -> str:
    """In the order in which LLaMA-Factory looks for a source."""
    if hub := values.get("hf_hub_url"):
        return "" if HUB_ID.fullmatch(hub) else f"'{hub[:120]}' is no id on the hub. Write it as owner/name."
    for key, hub in (("ms_hub_url", "ModelScope"), ("om_hub_url", "Modelers")):
        if key in values and "file_name" not in values:
            return f"lies on {hub}, which is not read here. Download it and name the file with 'file_name'."
    if "script_url" in values:
        return "needs a loading script, which is code, and is refused. Name a file of rows with 'file_name'."
    if "cloud_file_name" in values and "file_name" not in values:
        return "lies in cloud storage, which is not read here. Download it and name the file with 'file_name'."
    return file_problem


def _reading_problem(values: Mapping[str, Any]) -> str:
    stated = {part for part, column in values.get("columns", {}).items() if column}
    formatting = values.get("formatting", "alpaca")
    if media := [each for each in MEDIA if each in stated]:
        return f"has {' and '.join(media)}, and only text is learned here."
    if values.get("ranking") and "kto_tag" in stated:
        return "has both 'ranking' and 'kto_tag'. Keep one: pairs of answers, or single answers with a verdict."
    if stated & {"chosen", "rejected"} and not values.get("ranking"):
        return (
            "names 'chosen' or 'rejected', which are only read with 'ranking'. Add \"ranking\": true, or remove them."
        )
    if formatting == "alpaca":
        idle = "'messages'" if "messages" in stated else "'tags'" if values.get("tags") else ""
        remedy = 'Add "formatting": "sharegpt", or remove them.'
    else:
        idle = ", ".join(f"'{each}'" for each in ("prompt", "query", "response", "history") if each in stated)
        remedy = "Name the turns with 'messages', or remove the formatting."
    return f"names {idle}, which formatting '{formatting}' does not read. {remedy}" if idle else ""


def _file(name: str | None, base: Path) -> tuple[Path | None, str]:
    """The file or folder of an entry inside the folder of the description, or why there is none."""
    if name is None:
        return None, ""
    if not name.strip() or _CONTROL.search(name) or "://" in name:
        return None, f"has the file_name {name[:120]!r}, which is no name of a file."
    if _ABSOLUTE.match(name) or ".." in re.split(r"[/\\]", name):
        return (
            None,
            f"has the file_name '{name[:120]}', which leads out of the folder {base.name}. Move the file into it.",
        )
    try:
        return _inside(name, base.resolve())
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError before Python 3.13
        return None, f"has the file_name '{name[:120]}', which cannot be read: {error}."


def _inside(name: str, root: Path) -> tuple[Path | None, str]:
    path = (root / name).resolve()
    if path == root:
        return None, "names the whole folder as its file. Name a file, or a folder in it."
    if not path.is_relative_to(root):
        return (
            None,
            f"has the file_name '{name}', a link that leads out of the folder {root.name}. Move the file into it.",
        )
    if path.is_file():
        return path, ""
    if path.is_dir():
        kinds = _kinds(path)
        if len(kinds) == 1:
            return path, ""
        found = " and ".join(sorted(kinds)) if kinds else "no file of rows"
        return None, f"has the folder '{name}' with {found}. It must hold files of one kind."
    there = [each.name for each in (root / name).parent.glob("*") if each.name != FILE_NAME]
    near = unknown("file", Path(name).name, there)
    return None, f"has the file_name '{name}', which does not exist. {near.partition('. ')[2]}"


def _kinds(folder: Path) -> set[str]:
    names = [name for name in os.listdir(folder) if not name.startswith(".")]  # noqa: PTH208
    suffixes = {Path(name.lower().removesuffix(".gz").removesuffix(".zst")).suffix for name in names}
    return {_ONE_KIND.get(suffix, suffix) for suffix in suffixes & _READABLE}
