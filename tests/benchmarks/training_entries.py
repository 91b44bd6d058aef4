"""How each contender of a training benchmark runs the job: its trainer, its Python, and what it has otherwise.

Not here: who there is on a CPU (train_cpu) and on a GPU (train_gpu), and the trainers themselves (train_with_…).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.alternating import Contender
from tests.benchmarks.training_figures import GEMM
from tests.benchmarks.training_job import Job

NF4 = "-nf4"
"""What the names of contenders end in whose base is quantised."""


@dataclass(frozen=True)
class Entry:
    """trainer: a module train_with_… beside this one. changes: fields of the job. needs: what must be installed."""

    trainer: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    needs: str = "trl"

    def quantised(self) -> Entry:
        """The same with the base in NF4."""
        return Entry(self.trainer, {**self.changes, "quantization": "nf4"}, self.needs)


def contenders(
    entries: Mapping[str, Entry], job: Job, folder: Path, *, pythons: Mapping[str, str], timeout_s: float
) -> list[Contender]:
    """The rate of matrix products first, then the entries. folder: for the files of their jobs. pythons: by trainer,
    where it is not ours."""
    made = [Contender(GEMM, _command("gemm_rate", job.write(folder / f"{GEMM}.json")), timeout_s=timeout_s)]
    for name, entry in entries.items():
        path = job.write(folder / f"{name}.json", **entry.changes)
        python = pythons.get(entry.trainer, sys.executable)
        command = _command(f"train_with_{entry.trainer}", path, python=python)
        made.append(Contender(name, command, timeout_s=timeout_s))
    return made


def _command(module: str, path: Path, *, python: str = sys.executable) -> tuple[str, ...]:
    return (python, "-m", f"tests.benchmarks.{module}", str(path))


def missing(entries: Mapping[str, Entry], pythons: Mapping[str, str]) -> dict[str, str]:
    """Entries whose library is not installed, with a sentence that says so."""
    found = {}
    for name, entry in entries.items():
        python = pythons.get(entry.trainer, sys.executable)
        code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({entry.needs!r}) is None)"
        if subprocess.run([python, "-c", code], check=False).returncode:
            found[name] = f"{entry.needs} is not installed in {Path(python).parent.parent.name}"
    return found


def pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Whose rates are divided: the studio's by those of all others with such a base, and its quantised by its whole."""
    names = list(names)
    found = [
        (leader, other)
        for leader in ("studio", f"studio{NF4}")
        for other in names
        if leader in names and other != leader and other.endswith(NF4) == leader.endswith(NF4)
    ]
    both = (f"studio{NF4}", "studio")
    return [*found, both] if set(both) <= set(names) else found


def among(known: Iterable[str]) -> Callable[[str], list[str]]:
    """A reader of names with commas between them, for argparse."""
    known = tuple(known)

    def read(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}. There are {', '.join(known)}.")
        return names

    return read
