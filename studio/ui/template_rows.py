"""Which rows the Template tab steps through: all of a dataset, or those that its newest audit found something in.

Nothing is loaded but the few positions around the row on display. Not here: what an audit looks for
(studio.data.audit), and the buttons (studio.ui.tabs.template).
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from studio.data import registry
from studio.data.audit import findings
from studio.errors import DataError
from studio.jobs.monitor import Monitor
from studio.ui import audits
from studio.ui.audits import Audit
from studio.ui.texts import table

ALL = ""
"""The choice that stands for every row."""
FIRST = ("truncated", "unsupervised", "unwritable", "special_token")
"""What has to do with the template stands before what has not."""
AROUND = 50
"""Rows on either side that the browser knows, so that quick steps need not wait for an answer."""

STEP = """(row, kind, ...rest) => {{
  const by = {by}, now = Math.max(1, row ?? 0);
  const near = document.querySelector("#template-position [data-rows]");
  if (!kind || !near) return Math.max(1, now + by);
  const rows = JSON.parse(near.dataset.rows);
  return (by > 0 ? rows.find((each) => each > now) : rows.findLast((each) => each < now)) ?? now;
}}"""
"""The row that a button goes to."""


@dataclass(frozen=True)
class Place:
    """A row among those that are stepped through. near: rows around it, ascending, from 1. number: the how-manyth of
    them it is; 0 if it is none of them. kind: a kind of finding, or ALL."""

    row: int
    kind: str
    near: tuple[int, ...]
    number: int
    total: int

    @property
    def first(self) -> bool:
        return not any(each < self.row for each in self.near)

    @property
    def last(self) -> bool:
        return not any(each > self.row for each in self.near)


def audit_of(monitor: Monitor, dataset: str) -> Audit | None:
    """The newest audit of a dataset; none of one that is not registered."""
    try:
        return audits.newest(monitor, registry.get(dataset))
    except DataError:
        return None


def offered(audit: Audit | None, language: str) -> list[tuple[str, str]]:
    """The choices, each with its number of rows."""
    words = table(language)
    kinds = audit.kinds if audit else {}
    order = sorted(kinds, key=lambda kind: FIRST.index(kind) if kind in FIRST else len(FIRST))
    every = (words["template.all_rows"], ALL)
    return [every, *((f"{words[f'audit.kind.{kind}']} ({kinds[kind]:,})", kind) for kind in order)]


def place(audit: Audit | None, kind: str, row: int, rows: int, *, begin: bool = False) -> Place:
    """Where a row stands. rows: how many the dataset has. begin: at the first of the kind instead.

    Raises: DataError: the audit's findings are damaged.
    """
    if audit is None or kind not in audit.kinds:
        near = (*([min(row - 1, rows)] if row > 1 else []), *([row + 1] if row < rows else []))
        return Place(row, ALL, near, row, rows)
    found = findings.load(audit.findings, kind)
    at = found if found.ndim == 1 else found[:, 0]
    if begin:
        row = int(at[0]) + 1
    here = int(np.searchsorted(at, row - 1))
    near = tuple(int(each) + 1 for each in at[max(0, here - AROUND) : here + AROUND + 1])
    number = here + 1 if here < len(at) and at[here] == row - 1 else 0
    return Place(row, kind, near, number, len(at))


def told(where: Place, audit: Audit | None, language: str) -> str:
    """`Row 12: number 3 of 312 found by an audit with …`, and for the browser the rows around it."""
    words = table(language)
    if where.kind == ALL:
        key, more = "template.of_rows", "" if audit else words["template.no_audit"]
    else:
        key, more = "template.found" if where.number else "template.not_found", _settings(audit, words)
    text = words[key].format(row=f"{where.row:,}", number=f"{where.number:,}", total=f"{where.total:,}")
    near = f" data-rows='[{','.join(map(str, where.near))}]'" if where.kind else ""
    space = "" if language == "zh" else " "
    return f"<p class='quiet position' role='status'{near}>{html.escape(space.join(filter(None, (text, more))))}</p>"


def _settings(audit: Audit | None, words: Mapping[str, str]) -> str:
    """With what the audit counted, which may be other than what the tab shows."""
    settings = audit.report.settings if audit else {}
    if not settings.get("model"):
        return ""
    return words["template.audited_with"].format(
        template=settings["template"]["name"], limit=f"{settings['max_length']:,}"
    )
