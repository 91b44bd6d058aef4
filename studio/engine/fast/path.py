"""What of the fast path a run can take, why not the rest, and the proof of it on two rows before the first step.

Not here: the step (trainer), and the parts themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from studio.engine.fast import arena, attention
from studio.engine.fast.cross_entropy import Told, cross_entropy
from studio.engine.fast.documents import Document, Pass, lay_out
from studio.engine.fast.layers import fuse_layers, rotating
from studio.engine.fast.lora import Fused, can_fuse
from studio.engine.models.narrow import is_narrow
from studio.templates.packed import IGNORED

CLOSE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
"""Mean difference of a token's loss from the model's own, as a share of the mean loss where that is above 1 nat."""
PROOF = 48
"""Tokens of each of the two rows that the proof takes: seconds on no machine."""

FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, LookupError)


class NotProven(Exception):
    """The fast path gives something else than the model, or cannot run on it; the text says what."""


@dataclass
class Path:
    """A model that takes the fast path.

    model: with its adapter. autocast: the dtype of products that not every layer brings itself, or None. shared: a
    common beginning is computed once. kernels: of other libraries, and for what. arena: where a pass puts what it
    keeps.
    """

    model: Any
    shared: bool = True
    autocast: torch.dtype | None = None
    kernels: tuple[str, ...] = ()
    arena: arena.Arena = field(default_factory=arena.Arena)

    @contextmanager
    def within(self, batch: Pass) -> Iterator[None]:
        """Where a pass is run forward and backward: a layer may be computed again then."""
        keeps = torch.is_grad_enabled() and not self.model.is_gradient_checkpointing
        with (
            attention.within(batch.layout, batch.ids.device),
            rotating(causal_model(self.model)),
            arena.within(self.arena, keeps=keeps),
        ):
            yield

    def run(self, batch: Pass) -> Told:
        """Losses of a pass, inside of `within`."""
        causal = causal_model(self.model)
        device = batch.ids.device
        with torch.autocast(device.type, dtype=self.autocast or torch.bfloat16, enabled=self.autocast is not None):
            hidden = backbone(causal)(
                input_ids=batch.ids, position_ids=batch.positions, use_cache=False
            ).last_hidden_state
        head = causal.get_output_embeddings()
        learned = hidden[0, batch.places]
        if not is_narrow(head):
            learned = learned.to(head.weight.dtype)
        return cross_entropy(learned, head.weight, getattr(head, "bias", None), batch.targets)

    def passed(self, documents: Sequence[Document], device: torch.device) -> Pass:
        return lay_out(documents, shared=self.shared).to(device)


def causal_model(model: Any) -> Any:
    """The model that writes text, inside whatever PEFT put around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def backbone(causal: Any) -> Any:
    """It without its head."""
    return getattr(causal, causal.base_model_prefix)


def open_path(model: Any, rows: Sequence[Document], *, dtype: torch.dtype, mixed: bool) -> Path:
    """Put a model on the fast path.

    rows: at least one of the run's, for the proof. dtype: of the products, fp32 or bf16. mixed: weights in another one
    are cast to it for each product, as under autocast.
    Raises: NotProven: the model is left as it was.
    """
    causal = causal_model(model)
    head = causal.get_output_embeddings()
    if not hasattr(causal, causal.base_model_prefix) or type(head) is not torch.nn.Linear:
        raise NotProven(f"its head is a {type(head).__name__}, which does more than multiply")
    documents, usual = _proof(rows), causal.config._attn_implementation
    attention.register()
    with _undone_unless_proven(model):
        try:
            own = _own_losses(model, documents, mixed)
            causal.set_attn_implementation(attention.NAME)
            path = Path(model, shared=not _drops(model), **_fused(model, dtype, mixed))
            _prove(path, documents, own, dtype)
            path.kernels += tuple(f"{name}: attention" for name in attention.chosen())
        except FAILURES as error:  # whatever a model of an unknown make does with it
            causal.set_attn_implementation(usual)
            raise NotProven(f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}") from error
        except NotProven:
            causal.set_attn_implementation(usual)
            raise
    return path


def _fused(model: Any, dtype: torch.dtype, mixed: bool) -> dict[str, Any]:
    """Fuse what can be. Returns: the fields of Path that say what was."""
    layers = [module for module in model.modules() if can_fuse(module, dtype)]
    for layer in layers:
        layer.forward = Fused(layer, dtype)
    taken = [each for each in fuse_layers(causal_model(model)) if each.library]
    brought = {id(each) for layer in layers for each in layer.parameters() if each.requires_grad}
    alone = all(id(each) in brought for each in model.parameters() if each.requires_grad)
    # weights that train in fp32 beside a bf16 base need autocast, unless their layers bring their own products
    kernels = tuple(f"{each.library}: {each.name}" for each in taken)
    return {"kernels": kernels, "autocast": dtype if mixed and not alone else None}


def _drops(model: Any) -> bool:
    """Whether dropout in training would fall on the common beginning of rows that should each have their own."""
    modules = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    return modules or getattr(causal_model(model).config, "attention_dropout", 0.0) > 0


@contextmanager
def _undone_unless_proven(model: Any) -> Iterator[None]:
    """Give every module the forward it had if the proof fails."""
    before = {module: module.__dict__.get("forward") for module in model.modules()}
    try:
        yield
    except NotProven:
        for module, forward in before.items():
            module.__dict__.pop("forward", None)
            if forward is not None:
                module.forward = forward
        raise


def _proof(rows: Sequence[Document]) -> list[Document]:
    """Two short rows that learn all that they do not have in common."""
    ids = [each.ids[:PROOF] for each in rows[:2]]
    shortest = min(map(len, ids))
    same = torch.stack([each[:shortest] == ids[0][:shortest] for each in ids]).all(0)
    common = shortest - 1 if bool(same.all()) else int(same.to(torch.uint8).argmin())
    labels = [torch.where(torch.arange(len(each)) > common, each, IGNORED) for each in ids]
    return [Document(*each) for each in zip(ids, labels, strict=True)]


@torch.no_grad()
def _own_losses(model: Any, documents: Sequence[Document], mixed: bool) -> torch.Tensor:
    """What the model itself gives for each learned token, row by row, in nats."""
    device = next(model.parameters()).device
    losses = []
    with _evaluating(model), torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed):
        for each in documents:
            ids = each.ids[None].to(device)
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
            told = torch.nn.functional.cross_entropy(
                logits[0, :-1].float(), each.labels[1:].to(device), ignore_index=IGNORED, reduction="none"
            )
            losses.append(told[(each.labels[1:] != IGNORED).to(device)])
    return torch.cat(losses)


def _prove(path: Path, documents: Sequence[Document], own: torch.Tensor, dtype: torch.dtype) -> None:
    batch = path.passed(documents, own.device)
    with torch.no_grad(), _evaluating(path.model), path.within(batch):
        ours = path.run(batch).each
    off = float((ours - own).abs().mean() / own.mean().clamp(min=1.0))
    if not off <= CLOSE[dtype]:
        raise NotProven(f"its losses would be off by {off:.1e} of their mean")


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    was_training = model.training
    model.eval()
    for module in model.modules():
        if type(module).__name__ == "Linear8bitLt":  # rounds what it multiplies to 8 bits too, but not in training
            module.train()
    try:
        yield
    finally:
        model.train(was_training)
