"""A small set of preferences, and whole runs of the stages that learn from them, on a tiny model."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from studio.data import registry
from studio.specs import TrainSpec, parse

PAIRS = [
    {"prompt": f"What is {a} plus {b}?", "chosen": f"{a} plus {b} is {a + b}.", "rejected": f"Go away with your {a}."}
    for a in range(1, 9)
    for b in range(1, 4)
]


def preferring(folder, kind, **sections):
    """The spec of a run that learns from `pairs` with a stage, in fp32."""
    values = {
        "model": {"name": str(folder), "dtype": "fp32"},
        "quantization": {"kind": "none"},
        "data": {"datasets": ["pairs"], "max_length": 64, "validation_share": 0.25},
        "method": {"rank": 4},
        "stage": {"kind": kind},
        "training": {"max_steps": 6, "batch_size": 4, "accumulation": 1, "learning_rate": 5e-3, "precision": "fp32"},
        "evaluation": {"prompts": []},
    }
    for name, changes in sections.items():
        values[name] = changes if changes.get("kind") else values.get(name, {}) | changes
    return parse(TrainSpec, values)


@dataclass
class Trained:
    """A finished or stopped run. told: its events."""

    place: Path
    told: list

    @property
    def adapter(self):
        return self.place / "adapter"

    def of(self, kind):
        return [event for event in self.told if isinstance(event, kind)]


def trained(place, spec, stop_after=None, starts=()):
    """stop_after: ask for a stop at the end of this step. starts: folders that the run goes on from."""
    from studio.engine.train import train
    from studio.events import Step

    run = Trained(place, [])
    place.mkdir(parents=True, exist_ok=True)
    train(
        spec,
        checkpoints=place / "checkpoints",
        adapter=place / "adapter",
        record=place / "record.json",
        emit=run.told.append,
        starts=lambda: list(starts),
        stopping=lambda: stop_after is not None and any(step.step >= stop_after - 1 for step in run.of(Step)),
    )
    return run


@pytest.fixture
def pairs(studio_home, tmp_path):
    """The registered set, by name."""
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(PAIRS))
    return registry.add(path, "pairs").name
