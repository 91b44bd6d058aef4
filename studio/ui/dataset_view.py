"""Datasets and files as markup: the list, one dataset, its rows as they are read, what a file was understood as.

Pure; all data is escaped here. Not here: reading and registering (studio.data.registry), the widgets
(studio.ui.tabs.data).
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from studio.data import registry
from studio.data.example import BadRow, Example, Message
from studio.data.formats import FORMATS, Detection
from studio.data.readers import Row
from studio.data.registry import Dataset, Inspection
from studio.home import NAME
from studio.ui.texts import table

PAGE_ROWS = 20
SHOWN_CHARACTERS = 600
"""Of one cell; a longer text is cut, and its length is told."""
SHOWN_FAULTS = 50

PARTS = tuple(dict.fromkeys(part for each in FORMATS.values() for part in each.columns))
"""Every part that a column can play, in any format."""

Reading = tuple[Row, Example | BadRow | None]
"""A row, and what it becomes; None where there is no format to read it by."""


def listing(datasets: Sequence[Dataset], chosen: str | None, language: str) -> str:
    """All datasets as a table whose names are buttons; `data-name` carries the name of each."""
    words = table(language)
    heads = ("name", "format", "rows", "language", "licence")
    head = "".join(f"<th scope='col'>{_said(words, f'data.{key}')}</th>" for key in heads)
    body = "".join(_listed(each, each.name == chosen, language) for each in datasets)
    return f"<table class='figures-table datasets'><tr>{head}</tr>{body}</table>"


def title(dataset: Dataset, language: str) -> str:
    """The title in the language, if there is one in it."""
    return (dataset.title_zh if language == "zh" else "") or dataset.title


def about(dataset: Dataset, language: str) -> str:
    """One dataset: what it is, how it reads, and where it lies."""
    words = table(language)
    facts = {
        "format": dataset.format,
        "rows": f"{dataset.rows:,}",
        "language": dataset.language,
        "licence": dataset.licence,
        "hash": dataset.sha256[:12],
        "columns": columns(dataset.columns, words),
    }
    shown = "".join(
        f"<div><dt>{_said(words, f'data.{key}')}</dt><dd>{_cut(text)}</dd></div>" for key, text in facts.items() if text
    )
    lines = (title(dataset, language), dataset.description)
    texts = "".join(f"<p class='quiet'>{_cut(line)}</p>" for line in lines if line)
    place = f"<p class='quiet place'>{_said(words, 'data.location')} <code>{html.escape(str(dataset.path))}</code></p>"
    name = html.escape(dataset.name)
    return f"<h3 class='dataset-name'>{name}</h3>{texts}<dl class='figures dataset'>{shown}</dl>{place}"


def columns(mapping: Mapping[str, str], words: Mapping[str, str]) -> str:
    """`instruction → Prompt, output → Answer`, as plain text."""
    pairs = (f"{column} → {words.get(f'data.part.{part}', part)}" for part, column in mapping.items())
    return words["train.and"].join(pairs)


def how(dataset: Dataset) -> Detection:
    """How the rows of a registered dataset are read."""
    return Detection(dataset.format, 1.0, "", dataset.columns, dataset.tags)


def readings(rows: Iterable[Row], way: Detection) -> list[Reading]:
    """Each row with what it becomes."""
    return [(row, registry.example(row, way)) for row in rows]


def rows(read: Sequence[Reading], language: str) -> str:
    """The rows as they are read: what the model sees, and what it learns; or why a row is left out."""
    words = table(language)
    if not read:
        return f"<p class='quiet'>{_said(words, 'data.no_rows')}</p>"
    head = "".join(f"<th scope='col'>{_said(words, f'data.{key}')}</th>" for key in ("row", "prompt", "answer"))
    body = "".join(_row(row, outcome, words) for row, outcome in read)
    label = _said(words, "data.rows_as_read")
    return (
        f"<div class='answers rows' tabindex='0' role='region' aria-label='{label}'>"
        f"<table><tr>{head}</tr>{body}</table></div>"
    )


def position(start: int, count: int, total: int, language: str) -> str:
    """`rows 1–20 of 48`, where only the first PREVIEW_ROWS can be looked at."""
    words = table(language)
    if not count:
        return ""
    text = words["data.position"].format(first=start + 1, last=start + count, total=f"{total:,}")
    most = words["data.only_first"].format(count=registry.PREVIEW_ROWS) if total > registry.PREVIEW_ROWS else ""
    return f"<div class='quiet position'>{html.escape(text)}{html.escape(most)}</div>"


def understood(file_name: str, found: Inspection, language: str, *, by_hand: bool = False) -> str:
    """What a file was taken for, how surely, and how many of its rows can be learned from.

    by_hand: the format was chosen rather than detected.
    """
    words = table(language)
    key = "by_hand" if by_hand else f"certainty.{_certainty(found.detection)}"
    certainty = words[f"data.{key}"]
    known = words["data.understood"].format(file=file_name, format=found.detection.format, certainty=certainty)
    unknown = words["data.not_understood"].format(file=file_name)
    valid = words["data.valid"].format(valid=f"{found.valid:,}", rows=f"{found.rows:,}")
    kind = "better" if found.valid == found.rows else "some" if found.valid else "worse"
    return (
        f"<p class='understood'>{html.escape(known if found.detection.format else unknown)}</p>"
        + ("" if by_hand else f"<p class='quiet'>{html.escape(found.detection.reason)}</p>")
        + f"<p class='{kind}' data-valid='{found.valid}' data-rows='{found.rows}'>{html.escape(valid)}</p>"
    )


def faults(found: Inspection, language: str) -> str:
    """The rows that would be left out: which, where in them, and why."""
    words = table(language)
    if not found.faults:
        return ""
    head = "".join(f"<th scope='col'>{_said(words, f'data.{key}')}</th>" for key in ("row", "field", "reason"))
    body = "".join(
        f"<tr><td>{fault.row:,}</td><td>{_cut(fault.field)}</td><td>{_cut(fault.reason)}</td></tr>"
        for fault in found.faults[:SHOWN_FAULTS]
    )
    more = found.faults_total - min(len(found.faults), SHOWN_FAULTS)
    rest = words["data.more_faults"].format(count=f"{more:,}") if more else ""
    caption = words["data.faults"].format(count=f"{found.faults_total:,}")
    return (
        f"<table class='figures-table faults'><caption>{html.escape(caption)}</caption><tr>{head}</tr>{body}</table>"
        f"<p class='quiet'>{html.escape(rest)}</p>"
    )


def problems(sentences: Sequence[str]) -> str:
    """What is wrong with the registry, one quiet line each."""
    return "".join(f"<p class='note quiet'>{html.escape(each)}</p>" for each in sentences)


def suggested_name(file_name: str, taken: Iterable[str]) -> str:
    """A name that the registry accepts and that is free, after the file's own."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", file_name.rpartition(".")[0] or file_name).strip("-._")[:56].rstrip("-._")
    stem = stem if NAME.fullmatch(stem) else "dataset"
    used = {name.lower() for name in taken}
    names = (stem, *(f"{stem}-{number}" for number in range(2, 1000)))
    return next((name for name in names if name.lower() not in used), stem)


def _listed(dataset: Dataset, chosen: bool, language: str) -> str:
    name = html.escape(dataset.name)
    current = " aria-current='true'" if chosen else ""
    own = "" if dataset.shipped else f" <span class='quiet'>{_said(table(language), 'data.own')}</span>"
    cells = (dataset.format, f"{dataset.rows:,}", dataset.language or "–", dataset.licence or "–")
    return (
        f"<tr data-name='{name}'{current}><th scope='row'><button type='button' class='plain'{current}>{name}</button>"
        f"{own}<span class='quiet below'>{_cut(title(dataset, language), 80)}</span></th>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        + "</tr>"
    )


def _row(row: Row, outcome: Example | BadRow | None, words: Mapping[str, str]) -> str:
    number = f"<td>{row.number:,}</td>"
    match outcome:
        case BadRow():
            field = f"{outcome.field}: " if outcome.field else ""
            why = html.escape(words["data.left_out"].format(reason=f"{field}{outcome.reason}"))
            return f"<tr>{number}<td colspan='2'><span class='worse'>{why}</span>{_raw(row)}</td></tr>"
        case Example(text=str(text)):
            return f"<tr>{number}<td></td><td>{_cut(text)}</td></tr>"
        case Example(messages=messages):
            return f"<tr>{number}<td>{_turns(messages[:-1], words)}</td><td>{_turns(messages[-1:], words)}</td></tr>"
    return f"<tr>{number}<td colspan='2'>{_raw(row)}</td></tr>"


def _turns(messages: Sequence[Message], words: Mapping[str, str]) -> str:
    """One turn as its text, several each under its role; a lone one of another role than expected is named too."""
    named = len(messages) > 1 or any(each.role == "system" for each in messages)
    return "".join(
        (f"<span class='role'>{_said(words, f'data.role.{each.role}')}</span>" if named else "")
        + f"<div class='said'>{_cut(each.content)}</div>"
        for each in messages
    )


def _raw(row: Row) -> str:
    """A row as it is in the file, for one that cannot be read."""
    if row.values is None:
        return ""
    return f"<div class='quiet raw'>{_cut(json.dumps(row.values, ensure_ascii=False, default=str), 300)}</div>"


def _certainty(found: Detection) -> str:
    return "sure" if found.confidence >= 0.95 else "likely" if found.confidence >= 0.5 else "unsure"


def _said(words: Mapping[str, str], key: str) -> str:
    return html.escape(words[key])


def _cut(value: Any, most: int = SHOWN_CHARACTERS) -> str:
    text = str(value)
    short = text if len(text) <= most else f"{text[:most]}… ({len(text):,})"
    return html.escape(short)
