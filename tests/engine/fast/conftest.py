"""Runs of a few steps, through the fast path and through trl's own, with what each step's gradients were."""

import json
from dataclasses import dataclass, field

import pytest

from studio.engine import train as story
from studio.engine.callbacks import Stopper
from studio.engine.stages import sft
from studio.events import Note, Plan, Step
from studio.specs import TrainSpec, parse


@dataclass
class Seen:
    """told: events. gradients: by step, then by name."""

    told: list = field(default_factory=list)
    gradients: list = field(default_factory=list)

    @property
    def losses(self):
        return [event.loss for event in self.told if isinstance(event, Step)]

    @property
    def plan(self):
        return next(event for event in self.told if isinstance(event, Plan))

    @property
    def notes(self):
        return [event.text for event in self.told if isinstance(event, Note)]


def spec_of(folder, dataset, **sections):
    """SGD, so that a rounding error is not made as large as the gradient itself."""
    values = {
        "model": {"name": str(folder), "dtype": "fp32"},
        "quantization": {"kind": "none"},
        "data": {"datasets": [dataset], "max_length": 96},
        "method": {"rank": 4},
        "training": {
            "max_steps": 3,
            "batch_size": 3,
            "accumulation": 2,
            "learning_rate": 0.5,
            "optimizer": "sgd",
            "scheduler": "constant",
            "precision": "fp32",
            "save_steps": 100,
        },
        "evaluation": {"prompts": []},
    }
    for name, changes in sections.items():
        values[name] = changes if changes.get("kind") else values.get(name, {}) | changes
    return parse(TrainSpec, values)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(spec, fast=True) -> Seen"""

    def watch(seen):
        def on_pre_optimizer_step(self, args, state, control, model=None, **_):
            named = model.named_parameters()
            seen.gradients.append({name: each.grad.clone() for name, each in named if each.grad is not None})

        return on_pre_optimizer_step

    def go(spec, *, fast=True):
        seen = Seen()
        place = tmp_path / f"run-{len(list(tmp_path.glob('run-*')))}"
        place.mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(Stopper, "on_pre_optimizer_step", watch(seen), raising=False)
            if not fast:
                patch.setattr(sft, "fast_path", lambda setup: (None, "not wanted here"))
            story.train(
                spec,
                checkpoints=place / "checkpoints",
                adapter=place / "adapter",
                record=place / "record.json",
                emit=seen.told.append,
                stopping=lambda: False,
            )
        return seen

    return go


@pytest.fixture
def mixed_lengths(studio_home, tmp_path):
    """A registered set whose answers have very different lengths, by name."""
    from studio.data import registry

    rows = [
        {"instruction": f"Count to {count}.", "output": " ".join(map(str, range(1, count + 1)))}
        for count in (1, 2, 24, 3, 9, 5, 17, 4, 12, 7, 30, 2)
    ]
    path = tmp_path / "counting.json"
    path.write_text(json.dumps(rows))
    return registry.add(path, "counting").name
