"""An audit as markup: what was found, each with the rows it is in and the remedy that makes a set without it.

Pure; all data is escaped here. Not here: auditing (studio.data.audit), remedies (studio.data.derive), the charts
(studio.ui.plots), the widgets (studio.ui.data_audit).
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from studio.data.audit.report import Report
from studio.ui.dataset_view import free_name
from studio.ui.row_view import cut
from studio.ui.texts import table


@dataclass(frozen=True)
class Line:
    """A figure. count: rows; None if it was not looked for. finding: of the rows to show. remedy: leaves them out."""

    key: str
    count: int | None
    finding: str = ""
    remedy: str = ""


SUFFIXES = {
    "drop_faulty": "valid",
    "drop_duplicates": "unique",
    "drop_near_duplicates": "distinct",
    "drop_conflicts": "consistent",
    "drop_leaks": "apart",
    "drop_unwritable": "written",
    "drop_unsupervised": "learned",
    "balance": "balanced",
}
"""What the name of a set gets that a remedy makes."""


def lines(report: Report) -> list[Line]:
    """What can be wrong with rows, worst first."""
    return [
        Line("faults", report.faults_total, "fault", "drop_faulty"),
        Line("duplicates", report.duplicates, "duplicate", "drop_duplicates"),
        Line("near_duplicates", report.near_duplicates, "near_duplicate", "drop_near_duplicates"),
        Line("conflicts", report.conflicts, "conflict", "drop_conflicts"),
        # leaks between the sides of a split move with the rows, so that no remedy removes them
        Line("leaked", report.leaked, "leak", "drop_leaks" if report.settings.get("against") else ""),
        Line("unwritable", report.unwritable, "unwritable", "drop_unwritable"),
        Line("unsupervised", report.unsupervised, "unsupervised", "drop_unsupervised"),
        Line("truncated", report.truncated, "truncated"),
        Line("special_tokens", report.special_tokens, "special_token"),
    ]


def figures(report: Report, when: str, taken: Iterable[str], language: str) -> str:
    """Every figure of an audit. when: it was made. taken: names of datasets, so that a suggested one is free."""
    words, names = table(language), list(taken)
    return (
        f"<p class='quiet' role='status'>{html.escape(_heading(report, when, words))}</p>"
        f"<table class='figures-table audit'>{_rows(report, words)}"
        + "".join(_line(each, report, names, words) for each in lines(report))
        + _classes(report, names, words)
        + "".join(_told(key, text, words) for key, text in _tokens(report, words))
        + "</table>"
        + "".join(f"<p class='note'>{cut(each)}</p>" for each in report.warnings)
    )


def _heading(report: Report, when: str, words: Mapping[str, str]) -> str:
    tokens = report.tokens
    told = words["audit.made"].format(when=when, seconds=f"{report.seconds:,.1f}")
    if tokens is None:
        return told + words["audit.no_model"]
    settings = {"model": tokens["model"], "template": tokens["template"], "most": f"{tokens['max_length']:,}"}
    return told + words["audit.with_model"].format(**settings)


def _rows(report: Report, words: Mapping[str, str]) -> str:
    return _told("rows", words["data.valid"].format(valid=f"{report.valid:,}", rows=f"{report.rows:,}"), words)


def _line(line: Line, report: Report, taken: list[str], words: Mapping[str, str]) -> str:
    """A count, and what can be done about it."""
    name = f"<th scope='row'>{html.escape(words[f'audit.figure.{line.key}'])}{_below(line, report, words)}</th>"
    start = f"<tr data-figure='{line.key}' data-count='{'' if line.count is None else line.count}'>{name}"
    if line.count is None:
        return f"{start}<td class='quiet'>–</td><td></td></tr>"
    share = f" <span class='quiet'>({line.count / report.rows:.1%})</span>" if line.count and report.rows else ""
    buttons = _acts(line, report, taken, words) if line.count else ""
    return f"{start}<td>{line.count:,}{share}</td><td class='acts'>{buttons}</td></tr>"


def _acts(line: Line, report: Report, taken: list[str], words: Mapping[str, str]) -> str:
    shown = (
        f"<button type='button' class='plain' data-show='{line.finding}'>{html.escape(words['audit.show'])}</button>"
    )
    remedies = _remedy(line.remedy, report.dataset, taken, words) if line.remedy and line.count != report.rows else ""
    return shown + remedies


def _remedy(remedy: str, dataset: str, taken: list[str], words: Mapping[str, str]) -> str:
    said = words[f"audit.remedy.{remedy}"]
    name = free_name(f"{dataset[:44]}-{SUFFIXES[remedy]}", taken)
    ask = words["audit.ask_name"].format(remedy=said)
    return (
        f"<button type='button' class='plain' data-remedy='{remedy}' data-name='{html.escape(name)}' "
        f"data-ask='{html.escape(ask)}'>{html.escape(said)}…</button>"
    )


def _below(line: Line, report: Report, words: Mapping[str, str]) -> str:
    """What a count needs to be understood."""
    settings = report.settings
    text = ""
    if line.key == "near_duplicates" and line.count is not None and report.near_rows < report.valid - report.duplicates:
        text = words["audit.near_among"].format(count=f"{report.near_rows:,}")
    elif line.key == "leaked" and line.count is not None:
        against = settings.get("against")
        text = words["audit.also_in"].format(name=against) if against else words["audit.both_sides"]
    elif line.key == "truncated" and line.count:
        cuts = [words[f"audit.cut.{kind}"].format(count=f"{count:,}") for kind, count in (report.cut or {}).items()]
        text = words["audit.separator"].join([words["audit.raise_cutoff"], *cuts])
    elif line.count is None:
        text = words[f"audit.not_looked.{line.key}"]
    return f"<span class='quiet below'>{html.escape(text)}</span>" if text else ""


def _classes(report: Report, taken: list[str], words: Mapping[str, str]) -> str:
    classes = report.classes
    if not classes:
        return ""
    least, most = min(classes.values()), max(classes.values())
    text = words["audit.class_sizes"].format(count=f"{len(classes):,}", least=f"{least:,}", most=f"{most:,}")
    button = _remedy("balance", report.dataset, taken, words) if least != most else ""
    name = html.escape(words["audit.figure.classes"])
    return (
        f"<tr data-figure='classes' data-count='{len(classes)}'><th scope='row'>{name}</th>"
        f"<td>{html.escape(text)}</td><td class='acts'>{button}</td></tr>"
    )


def _tokens(report: Report, words: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    tokens = report.tokens
    if tokens is None:
        return
    total = tokens["total"]
    spread = {key: f"{total[key]:,.0f}" for key in ("mean", "p50", "p99", "max")}
    yield "tokens", words["audit.token_sum"].format(sum=f"{total['sum']:,}", kept=f"{tokens['kept']:,}")
    yield "lengths", words["audit.token_spread"].format(**spread)
    share, learned = f"{tokens['supervised_share']:.1%}", f"{tokens['supervised']:,}"
    yield "supervised", words["audit.token_share"].format(share=share, sum=learned)
    batch = report.settings.get("effective_batch_size", "?")
    yield "steps", words["audit.steps"].format(steps=f"{tokens['steps_per_epoch']:,}", batch=batch)


def _told(key: str, text: str, words: Mapping[str, str]) -> str:
    name = html.escape(words[f"audit.figure.{key}"])
    return f"<tr data-figure='{key}'><th scope='row'>{name}</th><td colspan='2'>{html.escape(text)}</td></tr>"
