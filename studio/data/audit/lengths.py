"""How long rows are in tokens, and how much of them is learned, counted exactly as a run counts.

Each row goes the way that it goes in training (studio.data.learning, studio.templates.many); one that is too long goes
it whole, too, so that the cutoff shows. Not here: training on the rows (studio.engine.rows.conversations).
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from studio.data.audit import findings
from studio.data.audit.pace import EVERY_S
from studio.data.example import BadRow, Example, Row
from studio.data.learning import sft
from studio.specs import AuditSpec
from studio.templates import Policy
from studio.templates.many import BATCH, BATCH_CHARACTERS, Encoder, characters
from studio.templates.packed import Packed

BINS = 40
_PERCENTILES = {"p50": 50, "p90": 90, "p95": 95, "p99": 99}


def policy(spec: AuditSpec) -> Policy:
    """That of a run with these settings."""
    template = spec.template
    return Policy(template.supervise, template.learn_thoughts, template.system, spec.max_length, spec.truncation)


class Lengths:
    """Counts the tokens of the examples that are added: 20 bytes each are kept."""

    def __init__(self, spec: AuditSpec, template: str, encoder: Encoder, folder: Path, check: Callable[[], None]):
        """template: its name. encoder: one that measures, by policy(spec). check: called while nothing else is done."""
        self._spec, self._template, self._encoder, self._check = spec, template, encoder, check
        self._batch: list[tuple[int, Row, Example]] = []
        self._characters = 0
        self._waiting: deque[tuple[list[tuple[int, Row, Example]], Future[Packed]]] = deque()
        self._at = array("q")
        self._total, self._response = array("i"), array("i")
        self._supervised, self._kept = array("i"), array("i")
        self._special = array("q")
        self._cuts: Counter[str] = Counter()
        self._refused = findings.Lines(folder / "unwritable.jsonl", 0)
        self._folder = folder
        self.left_out = 0

    def add(self, position: int, row: Row, example: Example) -> None:
        learned = sft(example)
        if learned is None:
            self.left_out += 1
            return
        self._batch.append((position, row, learned))
        self._characters += characters(learned)
        if len(self._batch) == BATCH or self._characters >= BATCH_CHARACTERS:
            self._submit()
            while len(self._waiting) > self._encoder.ahead:
                self._take()

    def _submit(self) -> None:
        future = self._encoder.submit([example for _, _, example in self._batch])
        self._waiting.append((self._batch, future))
        self._batch, self._characters = [], 0

    def _take(self) -> None:
        """Wait for the oldest batch, and note what became of it."""
        batch, future = self._waiting[0]
        while True:
            self._check()
            try:
                packed = future.result(timeout=EVERY_S)
                break
            except TimeoutError:
                continue
        self._waiting.popleft()
        for place, text in packed.refusals.items():
            position, row, _ = batch[place]
            self._refused.add(position, row, BadRow(row.number, "", text, row.file))
        written = np.ones(len(packed), dtype=bool)
        written[list(packed.refusals)] = False
        at = np.array([position for position, _, _ in batch], dtype=np.int64)
        self._at.frombytes(at[written].tobytes())
        named = ("total", self._total), ("answered", self._response), ("learns", self._supervised), ("kept", self._kept)
        for column, collected in named:
            collected.frombytes(packed.column(column)[written].tobytes())
        self._special.frombytes(at[packed.column("escaped") > 0].tobytes())
        self._cuts.update(packed.cuts())

    def finish(self) -> dict[str, Any]:
        """Write the findings. Returns: their numbers, as the report names them, and how rows are cut."""
        if self._batch:
            self._submit()
        while self._waiting:
            self._take()
        self._refused.close()
        at, total, supervised = np.array(self._at), np.array(self._total), np.array(self._supervised)
        kinds = {
            "truncated": at[total > self._spec.max_length],
            "unsupervised": at[supervised == 0],
            "unwritable": self._refused.positions,
            "special_token": np.array(self._special, dtype=np.int64),
        }
        for kind, positions in kinds.items():
            findings.save(self._folder, kind, positions)
        # as int32 beside each other: position, total, supervised, kept
        np.save(self._folder / "lengths.npy", np.stack([at, total, supervised, self._kept], axis=1).astype(np.int32))
        counts = {kind if kind != "special_token" else "special_tokens": len(each) for kind, each in kinds.items()}
        return {**counts, "cut": {kind: count for kind, count in self._cuts.items() if count}}

    def figures(self, held_out: np.ndarray | None) -> dict[str, Any]:
        """What the report says of tokens. held_out: positions that a run does not train on.

        total, prompt and response: of whole rows. kept and supervised: sums over the rows that are trained on, after
        the cutoff. left_out: rows that hold nothing to learn from, such as answers marked bad. The last bin of the
        histogram holds all rows above it too.
        """
        total, response = np.array(self._total, dtype=np.int64), np.array(self._response, dtype=np.int64)
        prompt = total - response
        kept, supervised = np.array(self._kept, dtype=np.int64), np.array(self._supervised, dtype=np.int64)
        trains = supervised > 0
        learned, seen = int(supervised.sum()), int(kept[trains].sum())
        if held_out is not None:
            trains &= ~np.isin(np.array(self._at), held_out)
        edges = _edges(total)
        parts = {"total": total, "prompt": prompt, "response": response}
        return {
            "rows": len(total),
            "left_out": self.left_out,
            "model": self._spec.model,
            "template": self._template,
            "max_length": self._spec.max_length,
            **{name: _spread(values) for name, values in parts.items()},
            "supervised": learned,
            "kept": seen,
            "supervised_share": learned / seen if seen else 0.0,
            "steps_per_epoch": math.ceil(int(trains.sum()) / self._spec.effective_batch_size),
            "histogram": {"edges": edges.tolist()} | {name: _counts(values, edges) for name, values in parts.items()},
        }


def _spread(values: np.ndarray) -> dict[str, float]:
    if not len(values):
        return {"sum": 0, "mean": 0.0, "min": 0, **dict.fromkeys(_PERCENTILES, 0), "max": 0}
    ranks = np.percentile(values, list(_PERCENTILES.values()), method="inverted_cdf")
    return {
        "sum": int(values.sum()),
        "mean": float(values.mean()),
        "min": int(values.min()),
        **{name: int(value) for name, value in zip(_PERCENTILES, ranks, strict=True)},
        "max": int(values.max()),
    }


def _edges(total: np.ndarray) -> np.ndarray:
    """Whole, even steps that reach a little beyond 99 % of the rows: a few long ones must not flatten the others."""
    if not len(total):
        return np.arange(2)
    most = min(int(total.max()) + 1, math.ceil(1.25 * float(np.percentile(total, 99))) + 1)
    step = max(1, math.ceil(most / BINS))
    return np.arange(0, most + step, step)


def _counts(values: np.ndarray, edges: np.ndarray) -> list[int]:
    return np.histogram(np.minimum(values, edges[-1]), bins=edges)[0].tolist()
