"""Short runs of a method on a tiny model, shared by the tests that look at what they left."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from studio.data import registry
from studio.specs import TrainSpec
from tests.engine.test_train import Run, spec

IDS = torch.tensor([[5, 6, 7, 900, 1, 2, 30]])


@dataclass(frozen=True)
class Ran:
    """A finished run. base: the folder it began from."""

    spec: TrainSpec
    run: Run
    base: Path

    def plain(self) -> Any:
        """The base alone, in fp32."""
        return AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32).eval()

    def reloaded(self, folder: Path | None = None) -> PeftModel:
        """What plain PEFT makes of the outcome, or of a checkpoint."""
        return PeftModel.from_pretrained(self.plain(), folder or self.run.adapter).eval()


def train(base: Path, dataset: str, place: Path, method: dict[str, Any], **sections: Any) -> Ran:
    """Three steps, in fp32 unless model says otherwise."""
    training = {"max_steps": 3, "save_steps": 3} | sections.pop("training", {})
    model = {"name": str(base), "dtype": "fp32"} | sections.pop("model", {})
    wanted = spec(base, dataset, model=model, training=training, **sections)
    wanted = TrainSpec.model_validate(wanted.model_dump(mode="json") | {"method": method})
    run = Run(place)
    assert run(wanted) == run.adapter
    return Ran(wanted, run, base)


def sums(place: Path) -> str:
    """A small registered set of conversations."""
    rows = [{"instruction": f"What is {a} plus {b}?", "output": f"{a + b}."} for a in range(1, 5) for b in range(1, 5)]
    place.mkdir(parents=True, exist_ok=True)
    (place / "sums.json").write_text(json.dumps(rows), encoding="utf-8")
    return registry.add(place / "sums.json", "sums").name


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(IDS).logits
