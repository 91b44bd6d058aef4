"""A file that is not registered yet as markup: what it was understood as, what is wrong with it, how far reading is.

Pure; all data is escaped here. Not here: reading (studio.data.intake), and the widgets (studio.ui.data_file).
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from studio.data.example import Row
from studio.data.formats import Detection
from studio.data.imports import Outcome
from studio.data.intake import Inspection, Intake, Progress
from studio.ui.dataset_view import columns
from studio.ui.row_view import cut, row_text
from studio.ui.texts import table

SHOWN_FAULTS = 50
SHOWN_TEXT = 200


def understood(taken: Intake, language: str, *, by_hand: bool = False) -> str:
    """What rows were taken for, how surely and why, what each column plays, and how many can be learned from.

    by_hand: the format or the columns were chosen rather than detected.
    """
    words, found = table(language), taken.inspection
    how = found.detection
    key = "by_hand" if by_hand else f"certainty.{_certainty(how)}"
    known = words["data.understood"].format(file=taken.title, format=how.format, certainty=words[f"data.{key}"])
    unknown = words["data.not_understood"].format(file=taken.title)
    mapping = words["data.mapping"].format(columns=columns(how.columns, words)) if how.columns else ""
    reason = "" if by_hand else how.reason
    return (
        f"<p class='understood'>{html.escape(known if how.format else unknown)}</p>"
        + "".join(f"<p class='quiet'>{cut(line)}</p>" for line in (reason, mapping) if line)
        + _counts(found, words)
        + "".join(f"<p class='note'>{cut(each)}</p>" for each in found.warnings)
    )


def faults(found: Inspection, rows: Sequence[Row | None], language: str) -> str:
    """The first rows that would be left out: where, why, and what they hold. rows: those of the first faults."""
    words = table(language)
    if not found.faults:
        return ""
    several = len({fault.file for fault in found.faults}) > 1
    heads = (*(["file"] if several else []), "row", "field", "reason")
    head = "".join(f"<th scope='col'>{html.escape(words[f'data.{key}'])}</th>" for key in heads)
    body = ""
    for fault, row in zip(found.faults[:SHOWN_FAULTS], rows, strict=False):
        text = f"<div class='raw quiet'>{cut(row_text(row), SHOWN_TEXT)}</div>" if row is not None else ""
        place = (*([cut(fault.file)] if several else []), f"{fault.row:,}", cut(fault.field))
        cells = "".join(f"<td>{cell}</td>" for cell in place)
        body += f"<tr>{cells}<td>{cut(fault.reason)}{text}</td></tr>"
    more = found.faults_total - min(len(found.faults), SHOWN_FAULTS)
    rest = f"<p class='quiet'>{html.escape(words['data.more_faults'].format(count=f'{more:,}'))}</p>" if more else ""
    caption = html.escape(words["data.faults"].format(count=f"{found.faults_total:,}"))
    return (
        f"<div class='answers' tabindex='0' role='region' aria-label='{caption}'>"
        f"<table class='faults'><caption>{caption}</caption><tr>{head}</tr>{body}</table></div>{rest}"
    )


def progress(title: str, done: Progress | None, seconds: float, language: str) -> str:
    """How far a pass is: percent, MB and rows as far as they are known, and a bar."""
    words = table(language)
    label = html.escape(words["data.reading"].format(file=title))
    if done is None or not (done.total or done.rows):
        return _bar(label, html.escape(words["data.seconds"].format(seconds=f"{seconds:.0f}")), None)
    rows = words["data.rows_read"].format(rows=f"{done.rows:,}")
    if not done.total:
        return _bar(label, html.escape(rows), None)
    share = min(1.0, done.done / done.total)
    size = f"{done.done / 1e6:,.1f} / {done.total / 1e6:,.1f} MB"
    return _bar(label, html.escape(f"{share:.0%} · {size} · {rows}"), share)


def outcomes(found: Sequence[Outcome], language: str) -> str:
    """What became of each entry of a data folder."""
    words = table(language)
    good = [each for each in found if each.dataset is not None]
    told = words["data.folder_done"].format(count=f"{len(good):,}", entries=f"{len(found):,}")
    lines = "".join(_outcome(each, words) for each in found)
    return f"<p role='status'>{html.escape(told)}</p><table class='figures-table'>{lines}</table>"


def _outcome(each: Outcome, words: Mapping[str, str]) -> str:
    made = each.dataset
    if made is None:
        told = f"<td>{cut(each.reason)}</td>"
    else:
        valid = words["data.valid"].format(valid=f"{made.valid:,}", rows=f"{made.rows:,}")
        told = f"<td class='better'>{html.escape(valid)}</td>"
    return f"<tr><th scope='row'>{cut(each.name, 80)}</th>{told}</tr>"


def _counts(found: Inspection, words: Mapping[str, str]) -> str:
    text = words["data.valid"].format(valid=f"{found.valid:,}", rows=f"{found.rows:,}")
    kind = "better" if found.valid == found.rows else "some" if found.valid else "worse"
    return f"<p class='{kind}' data-valid='{found.valid}' data-rows='{found.rows}'>{html.escape(text)}</p>"


def _bar(label: str, text: str, share: float | None) -> str:
    value = "" if share is None else f" value='{share:.4f}'"
    return (
        f"<div class='run'><p class='quiet' role='status'>{label} <span class='amount'>{text}</span></p>"
        f"<progress max='1'{value} aria-label='{label}'></progress></div>"
    )


def _certainty(found: Detection) -> str:
    return "sure" if found.confidence >= 0.95 else "likely" if found.confidence >= 0.5 else "unsure"
