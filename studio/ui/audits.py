"""The newest audit of a dataset as it is now, and what it found in which rows.

An audit of other rows, or of the same ones read in another way, is no longer told. Not here: auditing
(studio.data.audit), and how an audit looks (studio.ui.audit_view).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from studio.data.audit import report as reports
from studio.data.audit.report import Report
from studio.data.registry import Dataset
from studio.errors import StudioError
from studio.jobs import folder as folders
from studio.jobs.monitor import JobView, Monitor
from studio.ui.texts import table

NOT_MARKED = "fault"
"""A faulty row says itself what is wrong with it."""


@dataclass(frozen=True)
class Audit:
    """A finished audit. findings: their folder. kinds: how many rows each finding is in, of those in any."""

    view: JobView
    report: Report
    findings: Path
    kinds: Mapping[str, int]

    def positions(self, kind: str, start: int, count: int) -> list[int]:
        """Some of the rows with a finding, by their position in the dataset."""
        return reports.positions(self.findings, kind, start, count)


def newest(monitor: Monitor, dataset: Dataset) -> Audit | None:
    """The newest finished audit of exactly these rows, read as they are read now."""
    for view in monitor.views("audit"):
        if view.state != "finished":
            continue
        try:
            folder = folders.find(view.id)
            if reports.are_about(folder.findings, dataset):
                report = _report(folder.report, folder.report.stat().st_mtime_ns)
                return Audit(view, report, folder.findings, _kinds(folder.findings))
        except (StudioError, OSError):  # removed or damaged since; an older one may be whole
            continue
    return None


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


def _kinds(findings: Path) -> dict[str, int]:
    counts = {kind: reports.count(findings, kind) for kind in reports.looked_for(findings)}
    return {kind: count for kind, count in counts.items() if count}


@lru_cache(maxsize=16)
def _report(path: Path, modified: int) -> Report:
    """modified: of the file, so that a changed one is read anew."""
    return Report.load(path)
