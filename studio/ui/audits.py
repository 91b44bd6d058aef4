"""What an audit found in which rows, in words, and how the one that was started last stands.

Not here: auditing (studio.data.audit), which audit is about a dataset (studio.jobs.audits), and how one looks
(studio.ui.audit_view).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from studio.data.audit import report as reports
from studio.data.registry import Dataset
from studio.jobs.audits import Audit, newest
from studio.jobs.monitor import JobView, Monitor
from studio.ui.texts import table

__all__ = ["NOT_MARKED", "Audit", "latest", "newest", "words"]

NOT_MARKED = "fault"
"""A faulty row says itself what is wrong with it."""


def latest(monitor: Monitor, dataset: Dataset) -> JobView | None:
    """The audit of this dataset that was started last, however it stands."""
    asked = (view for view in monitor.views("audit") if (view.spec or {}).get("dataset") == dataset.name)
    return next(asked, None)


def words(audit: Audit, positions: Iterable[int], language: str) -> dict[int, tuple[str, ...]]:
    """What was found in each of some rows: `repeats row 12`, `longer than 512 tokens`."""
    texts = table(language)
    values = {"against": audit.report.settings.get("against") or "", "most": audit.report.settings.get("max_length")}
    found = {}
    for position in positions:
        here = reports.at(audit.findings, position)
        found[position] = tuple(
            texts[f"audit.mark.{_mark(kind, values)}"].format(row=f"{(partner or 0) + 1:,}", **values)
            for kind, partner in here.items()
            if kind != NOT_MARKED
        )
    return found


def _mark(kind: str, values: Mapping[str, object]) -> str:
    return "leak_between_sides" if kind == "leak" and not values["against"] else kind
