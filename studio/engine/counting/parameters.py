"""How many parameters a run will train, of how many, and how large its outcome is on disk, before anything loads.

What is counted is what the run's own plan reports. Not here: what is wrong with a choice of layers (faults).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

from studio.engine.counting.added import Added, trained
from studio.engine.counting.faults import faults_on
from studio.engine.counting.heads import headed
from studio.engine.counting.others import OTHERS
from studio.engine.counting.shapes import HEAD, SCORE, Shapes, shapes_of
from studio.engine.counting.targeted import TARGETED
from studio.engine.counting.targets import chosen, whole
from studio.errors import SpecError
from studio.specs import LoraMethod, TrainSpec

BYTES = 4
"""Adapters train and are saved in fp32."""
WITHOUT_HEAD = frozenset({"full", "adaption_prompt"})
"""Methods beside which no copy of a classifier's head is made: its own weights train, or it does not."""


@dataclass(frozen=True)
class Count:
    """What trains: parameters, of how many in all, bytes of the saved tensors in fp32, and parts that are adapted.

    targets: layers; for trained tokens, biases or norms, how many of these.
    """

    trainable: int
    total: int
    bytes_on_disk: int
    targets: int

    @property
    def share(self) -> float:
        """Of all parameters, from 0 to 1."""
        return self.trainable / self.total


def count(spec: TrainSpec, *, labels: int | None = None) -> Count:
    """What a run will train.

    labels: of a run that classifies, how many; without it they are counted in its datasets.
    Raises: SpecError: the method does not fit the model; every fault. NotHere: the model is not on this machine yet.
        ModelError: its files tell too little. DataError: the labels cannot be counted.
    """
    return counted(spec, shapes_of(spec.model.name), labels=labels)


def counted(spec: TrainSpec, shapes: Shapes, *, labels: int | None = None) -> Count:
    """The same for a model whose shapes are known."""
    model = headed(spec, shapes, labels)
    if faults := faults_on(spec, model):
        raise SpecError(faults)
    added = _added(spec, model)
    total = model.total + added.new + added.fixed
    return Count(added.new + added.own, total, added.saved * BYTES, added.targets)


def _added(spec: TrainSpec, shapes: Shapes) -> Added:
    method = spec.method
    if method.kind not in TARGETED:
        return OTHERS[method.kind](spec, shapes) + _head(spec, shapes)
    return TARGETED[method.kind](method, chosen(method, shapes), shapes) + _whole(method, shapes) + _head(spec, shapes)


def _whole(method: Any, shapes: Shapes) -> Added:
    """Modules of which copies train. LoRA keeps a tied pair one, and PEFT saves it under both names."""
    names = set(whole(method.modules_to_save, shapes))
    tied = isinstance(method, LoraMethod) and shapes.tied and any(map(_is_tied, method.modules_to_save))
    if tied:
        names -= {HEAD, shapes.embedding.name}
    found = trained(sum(prod(size) for name in names for size in shapes.inside(name).values()))
    return found + Added(new=_embeddings(shapes), saved=2 * _embeddings(shapes)) if tied else found


def _is_tied(word: str) -> bool:
    """PEFT (0.21) knows a tied pair by these names."""
    return word.rpartition(".")[2] in ("embed_tokens", HEAD)


def _head(spec: TrainSpec, shapes: Shapes) -> Added:
    """The head of a classifier or reward model: a copy that trains, or an adapter that is saved merged into one."""
    if spec.stage.kind not in ("classify", "reward") or spec.method.kind in WITHOUT_HEAD:
        return Added()
    if getattr(spec.stage, "head", "whole") == "whole":
        return trained(sum(prod(size) for size in shapes.inside(SCORE).values()))
    beside = TARGETED[spec.method.kind](spec.method, [shapes.linear[SCORE]], shapes)
    return replace(beside, saved=prod(shapes.weights[f"{SCORE}.weight"]))


def _embeddings(shapes: Shapes) -> int:
    return prod(shapes.weights[f"{shapes.embedding.name}.weight"])
