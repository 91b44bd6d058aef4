"""The training job that contenders are measured by: LoRA on the same rows, in the same order, read from one file.

Not here: any contender, and the arithmetic that the job takes (arithmetic).
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

CUTOFF_TOKENS = 512
SEED = 42


@dataclass(frozen=True)
class Job:
    """One epoch, LoRA on all linear layers, AdamW, linear learning rate without warm-up, rows in their order.

    model: a folder. rows: a JSON file of alpaca rows. tokens: a JSON file of the same rows tokenised, each with
    input_ids and labels (-100: no loss). batch: rows of a forward pass, where the contender does not choose itself.
    quantization: none or nf4 (double). threads: 0 is as many as there are. options: what this contender has otherwise
    than by default.
    """

    model: str
    rows: str
    tokens: str
    cutoff: int = CUTOFF_TOKENS
    batch: int = 4
    accumulation: int = 2
    rank: int = 16
    alpha: int = 32
    learning_rate: float = 2e-4
    quantization: str = "none"
    threads: int = 0
    seed: int = SEED
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def effective_batch(self) -> int:
        return self.batch * self.accumulation

    def tokenised(self) -> list[dict[str, list[int]]]:
        return json.loads(Path(self.tokens).read_text(encoding="utf-8"))

    def write(self, path: Path, **changes: Any) -> Path:
        """Into a file that a contender's process reads."""
        path.write_text(json.dumps(asdict(replace(self, **changes))), encoding="utf-8")
        return path


def given() -> Job:
    """The job whose file the command line of this process names."""
    return Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))


def lengths(job: Job) -> list[tuple[int, int]]:
    """(tokens, supervised tokens) of each row. A row's first token is never predicted."""
    return [(len(row["input_ids"]), sum(label != -100 for label in row["labels"][1:])) for row in job.tokenised()]


def warm_up_steps(steps: int) -> int:
    """How many of the first steps are left out of a rate: two, or fewer where that would leave none."""
    return max(1, min(2, steps - 1))
