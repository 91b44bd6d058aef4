"""The figures of an audit, as it wrote them, and its findings by row.

    Report.load(path)                            the figures
    positions(findings, kind, start, count)      where something was found
    partner(findings, kind, position)            which row it repeats, contradicts or leaks from
    at(findings, position)                       all that was found at one row

Not here: the audit itself (story).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from studio.data.audit.findings import KINDS, are_about, at, count, looked_for, partner, positions, settings, unwritable
from studio.errors import DataError
from studio.home import write_atomically

__all__ = [
    "KINDS",
    "Report",
    "are_about",
    "at",
    "count",
    "looked_for",
    "partner",
    "positions",
    "settings",
    "unwritable",
]


@dataclass(frozen=True)
class Report:
    """What an audit found, in numbers of rows. None: it was not looked for.

    faults: the first ones. near_rows: among how many different rows near duplicates were looked for. leaked: rows
    that also stand in the other dataset, or whose near duplicate the split puts on its other side. special_tokens:
    rows whose text holds a special token's string. tokens: see studio.data.audit.lengths. cut: how many of the
    truncated rows lose what, by studio.templates.CUTS; older reports do not say.
    """

    dataset: str
    sha256: str
    format: str
    rows: int
    valid: int
    faults_total: int
    faults: list[dict[str, Any]]
    warnings: list[str]
    duplicates: int
    near_duplicates: int | None
    near_rows: int
    conflicts: int
    leaked: int | None
    special_tokens: int | None
    truncated: int | None
    unsupervised: int | None
    unwritable: int | None
    classes: dict[str, int] | None
    tokens: dict[str, Any] | None
    settings: dict[str, Any]
    seconds: float
    rows_per_s: float
    cut: dict[str, int] | None = None

    @classmethod
    def load(cls, path: Path) -> Report:
        """Raises: DataError: there is no report, or it is damaged."""
        try:
            values = json.loads(path.read_bytes())
            return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path} is no report of an audit that can be read. Audit the dataset again.") from error

    def save(self, path: Path) -> None:
        write_atomically(path, json.dumps(asdict(self), ensure_ascii=False, indent=1))
