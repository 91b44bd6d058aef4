"""The audits of a dataset as it is now, newest first: of other rows, or of rows read in another way, none is told.

Not here: auditing (studio.data.audit), and what an audit found, in words (studio.ui.audits).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from studio.data.audit import report as reports
from studio.data.audit.report import Report
from studio.data.registry import Dataset
from studio.errors import StudioError
from studio.jobs import folder as folders
from studio.jobs.monitor import JobView, Monitor


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
    return next(every(monitor, dataset), None)


def every(monitor: Monitor, dataset: Dataset) -> Iterator[Audit]:
    """All of them, newest first."""
    for view in monitor.views("audit"):
        if view.state != "finished":
            continue
        try:
            folder = folders.find(view.id)
            if reports.are_about(folder.findings, dataset):
                report = _report(folder.report, folder.report.stat().st_mtime_ns)
                yield Audit(view, report, folder.findings, _kinds(folder.findings))
        except (StudioError, OSError):  # removed or damaged since; an older one may be whole
            continue


def _kinds(findings: Path) -> dict[str, int]:
    counts = {kind: reports.count(findings, kind) for kind in reports.looked_for(findings)}
    return {kind: count for kind, count in counts.items() if count}


@lru_cache(maxsize=16)
def _report(path: Path, modified: int) -> Report:
    """modified: of the file, so that a changed one is read anew."""
    return Report.load(path)
