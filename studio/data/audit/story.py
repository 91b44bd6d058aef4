"""One audit, top to bottom: read each row once, then compare, then write what was found.

Memory is constant but for some 30 bytes a row (50 with tokens): hashes, positions and lengths, never the rows. Not
here: how each thing is looked for (content, near, leakage, lengths).
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from studio import templates
from studio.data import registry
from studio.data.audit import content
from studio.data.audit import findings as found
from studio.data.audit.content import Content
from studio.data.audit.leakage import Leakage, Sides, between_sides
from studio.data.audit.lengths import Lengths, policy
from studio.data.audit.near import Found, Sketches
from studio.data.audit.pace import EVERY_S, Pace, Stopped
from studio.data.audit.report import Report
from studio.data.example import BadRow, Example, Row
from studio.data.registry import Dataset
from studio.errors import DataError
from studio.events import Emit, Note
from studio.specs import AuditSpec
from studio.templates import Template, TextTokenizer
from studio.templates.many import Encoder

LISTED_FAULTS, LISTED_CLASSES = 200, 200
_SCRATCH = ".audit-"


def audit(
    spec: AuditSpec,
    *,
    tokenizer: TextTokenizer | None,
    report: Path,
    findings: Path,
    emit: Emit,
    stopping: Callable[[], bool],
) -> Path | None:
    """Look through a dataset, and write a report and the findings by row.

    tokenizer: of spec.model; None counts no tokens.
    Returns: the report, or None if it was stopped; then nothing is left behind.
    Raises: DataError: a dataset is unknown or is not what was registered. TemplateError: there is no such template.
    """
    started = time.monotonic()
    shutil.rmtree(findings, ignore_errors=True)
    report.unlink(missing_ok=True)
    try:
        with _scratch(findings.parent) as scratch, ExitStack() as until_the_end:
            work = _Audit(spec, tokenizer, findings, scratch, Pace(emit, stopping), until_the_end)
            work.read()
            figures = work.compared()
    except Stopped:
        shutil.rmtree(findings, ignore_errors=True)
        return None
    except BaseException:
        shutil.rmtree(findings, ignore_errors=True)
        raise
    seconds = time.monotonic() - started
    rows_per_s = work.dataset.rows / max(seconds, 1e-9)
    Report(**figures, seconds=seconds, rows_per_s=rows_per_s).save(report)
    for warning in work.warnings:
        emit(Note(text=warning))
    return report


class _Audit:
    """What is collected while the rows go by once."""

    def __init__(
        self,
        spec: AuditSpec,
        tokenizer: TextTokenizer | None,
        folder: Path,
        scratch: Path,
        pace: Pace,
        until_the_end: ExitStack,
    ):
        self.spec, self.folder, self.pace = spec, folder, pace
        self.dataset = _whole(spec.dataset, pace)
        found.begin(folder, self.dataset, spec.model_dump(mode="json"))
        self.faults = found.Lines(folder / "faults.jsonl", LISTED_FAULTS)
        self.content = Content()
        self.classes: Counter[str] = Counter()
        self.sides = Sides(spec) if spec.validation_share else None
        template = templates.resolve(spec.template.name, tokenizer) if tokenizer else None
        self.lengths: Lengths | None = None
        if tokenizer and template:
            encoder = Encoder(template, tokenizer, policy(spec), examples=self.dataset.rows, measured=True)
            until_the_end.enter_context(encoder)
            self.lengths = Lengths(spec, template.name, encoder, folder, pace.check)
        self.sketches = Sketches(scratch, "said", spec.similarity) if spec.near_duplicates else None
        self.seen: set[int] = set()
        self.leakage = Leakage(_whole(spec.against, pace), spec, scratch, pace) if spec.against else None
        self.warnings = _warnings(self.dataset, template, tokenizer)

    def read(self) -> None:
        """Every row, once."""
        outcomes = registry.outcomes(self.dataset)
        name = "tokenize" if self.lengths else "read"
        for position, (row, outcome) in enumerate(self.pace.through(outcomes, name, self.dataset.rows)):
            if isinstance(outcome, BadRow):
                self.faults.add(position, row, outcome)
            else:
                self._add(position, row, outcome)
        self.faults.close()

    def _add(self, position: int, row: Row, example: Example) -> None:
        whole = self.content.add(position, example)
        if example.kind == "classification":
            self.classes[str(example.label)] += 1
        if self.sides is not None:
            self.sides.add(position, row, example)
        if self.sketches is not None or self.leakage is not None:
            is_new = whole not in self.seen
            if is_new and len(self.seen) < self.spec.near_rows:
                self.seen.add(whole)
                if self.sketches is not None:
                    self.sketches.add(position, content.said(example))
            if self.leakage is not None:
                self.leakage.add(position, example, is_new=is_new)
        if self.lengths is not None:
            self.lengths.add(position, row, example)

    def compared(self) -> dict[str, Any]:
        """Compare what was collected, and write the findings. Returns: the figures of the report."""
        self.pace.tell("compare", 0, self.dataset.rows)
        duplicates = self.content.duplicates()
        self.pace.tell("compare", 0, self.dataset.rows)
        conflicts = self.content.conflicts()
        near = None
        if self.sketches is not None:
            near = self.sketches.within(self.pace)
            self.sketches.close()
        held_out = self._held_out()
        kinds: dict[str, np.ndarray | None] = {
            "fault": self.faults.positions,
            "duplicate": duplicates,
            "near_duplicate": near.pairs if near is not None else None,
            "conflict": conflicts,
            "leak": self._leaks(duplicates, near, held_out),
        }
        for kind, positions in kinds.items():
            if positions is not None:
                found.save(self.folder, kind, positions)
        if near is not None:
            np.save(self.folder / "similarity.npy", near.similarity)
        counts = {kind: None if positions is None else len(positions) for kind, positions in kinds.items()}
        tokens = self.lengths.finish() if self.lengths is not None else dict.fromkeys(found.OF_TOKENS)
        return {
            "dataset": self.dataset.name,
            "sha256": self.dataset.sha256,
            "format": self.dataset.format,
            "rows": len(self.content) + counts["fault"],
            "valid": len(self.content),
            "faults_total": counts["fault"],
            "faults": self.faults.kept,
            "warnings": self.warnings,
            "duplicates": counts["duplicate"],
            "near_duplicates": counts["near_duplicate"],
            "near_rows": len(self.sketches) if self.sketches is not None else 0,
            "conflicts": counts["conflict"],
            "leaked": counts["leak"],
            "classes": dict(self.classes.most_common(LISTED_CLASSES)) or None,
            **tokens,
            "tokens": self.lengths.figures(held_out) if self.lengths is not None else None,
            "settings": self.spec.model_dump(mode="json"),
        }

    def _held_out(self) -> np.ndarray | None:
        """Positions that a run with this spec's split would not train on; None if it holds nothing out."""
        if self.sides is None:
            return None
        try:
            return self.sides.held_out()
        except DataError as error:
            # a run would be refused; an audit still has something to say
            self.warnings.append(str(error))
            return None

    def _leaks(self, duplicates: np.ndarray, near: Found | None, held_out: np.ndarray | None) -> np.ndarray | None:
        """With another dataset its leaks; else those between the two sides of the split."""
        if self.leakage is not None:
            return self.leakage.found(duplicates, self.pace)
        if near is None or held_out is None:
            return None
        return between_sides(near, held_out)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder for what is only needed while rows are compared. One that a killed worker left goes first."""
    for left in folder.glob(f"{_SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=_SCRATCH, ignore_cleanup_errors=True) as path:
        yield Path(path)


def _whole(name: str, pace: Pace) -> Dataset:
    """A dataset whose rows are those that were registered. Many gigabytes take a while, so that is told meanwhile."""
    dataset = registry.get(name)
    with ThreadPoolExecutor(1) as pool:
        verified = pool.submit(registry.verify, dataset)
        while not verified.done():
            pace.tell("read", 0, dataset.rows)
            wait([verified], timeout=EVERY_S)
        verified.result()
    return dataset


def _warnings(dataset: Dataset, template: Template | None, tokenizer: TextTokenizer | None) -> list[str]:
    told = [registry.changed(dataset)] if dataset.sources else []
    if template is not None and tokenizer is not None:
        told += templates.concerns(template, tokenizer)
    return [each for each in told if each]
