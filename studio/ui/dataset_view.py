"""Registered datasets as markup: the list, and one dataset with its facts.

Pure; all data is escaped here. Not here: its rows (studio.ui.row_view), a file that is not registered yet
(studio.ui.intake_view), the widgets (studio.ui.tabs.data).
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence

from studio.data.formats import FORMATS
from studio.data.registry import Dataset
from studio.home import NAME
from studio.ui.row_view import cut
from studio.ui.texts import table

_RARE = ("history", "system", "tools")
PARTS = tuple(
    sorted(dict.fromkeys(part for each in FORMATS.values() for part in each.columns), key=lambda part: part in _RARE)
)
"""Every part that a column can play, in any format; those that most data does without come last."""
TAGS = tuple(dict.fromkeys(tag for each in FORMATS.values() for tag in each.tags))
"""Every word that the data of some format may replace."""


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
    """One dataset: what it is, how it reads, where it came from and where it lies."""
    words = table(language)
    facts = {
        "format": dataset.format,
        "rows": f"{dataset.rows:,}",
        "valid_rows": f"{dataset.valid:,}" if dataset.valid != dataset.rows else "",
        "language": dataset.language,
        "licence": dataset.licence,
        "hash": dataset.sha256[:12],
        "columns": columns(dataset.columns, words),
    }
    shown = "".join(
        f"<div><dt>{_said(words, f'data.{key}')}</dt><dd>{cut(text)}</dd></div>" for key, text in facts.items() if text
    )
    lines = (title(dataset, language), dataset.description, origin(dataset, words))
    texts = "".join(f"<p class='quiet'>{cut(line)}</p>" for line in lines if line)
    place = f"<p class='quiet place'>{_said(words, 'data.location')} <code>{html.escape(str(dataset.path))}</code></p>"
    name = html.escape(dataset.name)
    return (
        f"<h3 class='dataset-name'>{name}</h3>{texts}<dl class='figures dataset'>{shown}</dl>"
        f"{_left_out(dataset, words)}{place}"
    )


def origin(dataset: Dataset, words: Mapping[str, str]) -> str:
    """Which dataset it was made from and how, or which files it came from, as plain text."""
    made = dataset.origin
    if "from" in made:
        remedy = str(made.get("remedy", ""))
        how = words.get(f"audit.remedy.{remedy}", remedy)
        return words["data.made_from"].format(name=made["from"], how=how)
    if "hub" in made:
        return words["data.from_hub"].format(repo=made["hub"], revision=str(made.get("revision", ""))[:12])
    names = [source.name for source in dataset.sources]
    if not names or names == [dataset.title]:
        return ""
    more = f" (+{len(names) - 3})" if len(names) > 3 else ""
    return words["data.from_files"].format(files=", ".join(names[:3]) + more)


def columns(mapping: Mapping[str, str], words: Mapping[str, str]) -> str:
    """`instruction → Prompt, output → Answer`, as plain text."""
    pairs = (f"{column} → {words.get(f'data.part.{part}', part)}" for part, column in mapping.items())
    return words["train.and"].join(pairs)


def problems(sentences: Sequence[str]) -> str:
    """What is wrong with the registry, one quiet line each."""
    return "".join(f"<p class='note quiet'>{html.escape(each)}</p>" for each in sentences)


def suggested_name(file_name: str, taken: Iterable[str]) -> str:
    """A name that the registry accepts and that is free, after the file's own."""
    base = re.sub(r"(\.(gz|zst))?$", "", file_name)
    base = base.rpartition(".")[0] or base
    return free_name(base, taken)


def free_name(text: str, taken: Iterable[str]) -> str:
    """A name that the registry accepts and that is free, as near to a text as can be."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:56].rstrip("-._")
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
        f"{own}<span class='quiet below'>{cut(title(dataset, language), 80)}</span></th>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        + "</tr>"
    )


def _left_out(dataset: Dataset, words: Mapping[str, str]) -> str:
    """What to do about rows that cannot be learned from."""
    count = dataset.rows - dataset.valid
    if not count:
        return ""
    text = words["data.faulty_rows"].format(count=f"{count:,}", valid=f"{dataset.valid:,}")
    return f"<p class='note'>{html.escape(text)}</p>"


def _said(words: Mapping[str, str], key: str) -> str:
    return html.escape(words[key])
