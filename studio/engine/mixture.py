"""LoRA of several adapters in one batch: three products a layer for all rows, whoever they belong to.

PEFT (0.21) takes the rows of each adapter apart at every layer and hooks itself in anew for every pass: a token of
SmolLM2 for a batch of several takes 1.6 times as long on two cores. Here the adapters' matrices lie side by side, and
each row uses its own part. Not here: what is decoded (studio.engine.generate), and adapters that PEFT must compute
itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper

from studio.engine.held import BASE

FEW = 4
"""Adapters that stay side by side although fewer are asked for."""
_known: WeakKeyDictionary[Any, tuple[tuple[str, ...], Mixture | None]] = WeakKeyDictionary()


def mixture_of(model: Any) -> Mixture | None:
    """For a model with LoRA adapters on it. None: one of them has parts that only PEFT knows how to compute."""
    adapters = tuple(model.peft_config)
    known = _known.get(model)
    if known is None or known[0] != adapters:
        layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
        whole = any(isinstance(module, ModulesToSaveWrapper) for module in model.modules())
        known = adapters, None if whole or not all(map(_is_plain, layers)) else Mixture(model, layers)
        _known[model] = known
    return known[1]


class Mixture:
    """The LoRA layers of a model, for rows of several adapters.

    The matrices of the adapters that rows ask for are put side by side when one is asked for that is not there yet;
    those that nobody asks for any more stay until there are many of them.
    """

    def __init__(self, model: Any, layers: Sequence[Any]):
        self._base = model.get_base_model()
        self._layers = [_Layer(layer) for layer in layers]
        self._adapters: tuple[str, ...] = ()
        self._names: tuple[str, ...] | None = None

    @contextmanager
    def within(self, names: Sequence[str]) -> Iterator[Any]:
        """The model that computes each row under the adapter of its name, BASE for none."""
        wanted = {name for name in names if name != BASE}
        if not wanted <= set(self._adapters) or len(self._adapters) > max(FEW, 2 * len(wanted)):
            self._adapters, self._names = tuple(sorted(wanted)), None
            for layer in self._layers:
                layer.stack(self._adapters)
        if tuple(names) != self._names:
            self._names = tuple(names)
            masks: dict[Any, torch.Tensor] = {}
            for layer in self._layers:
                layer.choose(self._names, masks)
        try:
            for layer in self._layers:
                layer.begin()
            yield self._base
        finally:
            for layer in self._layers:
                layer.end()


class _Layer:
    """One layer. ranks: how many columns each adapter has in it, in their order; those that do not adapt it have none.

    mask: (n, 1, all columns) which of them belong to each row.
    """

    def __init__(self, layer: Any):
        self._layer = layer
        self._ranks: tuple[tuple[str, int], ...] = ()
        self._down = self._up = self._mask = torch.empty(0)

    def stack(self, adapters: Sequence[str]) -> None:
        """Put the matrices of these side by side."""
        layer = self._layer
        here = [name for name in adapters if name in layer.lora_A]
        self._ranks = tuple((name, len(layer.lora_A[name].weight)) for name in here)
        if here:
            with torch.no_grad():
                self._down = torch.cat([layer.lora_A[name].weight for name in here]).t().contiguous()
                ups = [(layer.lora_B[name].weight * layer.scaling[name]).t() for name in here]
                self._up = torch.cat(ups).contiguous()

    def choose(self, names: tuple[str, ...], masks: dict[Any, torch.Tensor]) -> None:
        """Have each row use the adapter of its name. masks: those of layers that are alike, to which this adds."""
        if not self._ranks:
            return
        kind = self._ranks, self._down.dtype, self._down.device
        if kind not in masks:
            columns = [name for name, rank in self._ranks for _ in range(rank)]
            own = torch.tensor([[column == name for column in columns] for name in names])
            masks[kind] = own.to(self._down)[:, None]
        self._mask = masks[kind]

    def begin(self) -> None:
        self._layer.__dict__["forward"] = self._forward if self._ranks else self._layer.base_layer.forward

    def end(self) -> None:
        self._layer.__dict__.pop("forward", None)

    def _forward(self, x: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        """x: (n, T, E)"""
        out = self._layer.base_layer(x, *args, **options)
        part = (x.to(self._down.dtype) @ self._down) * self._mask
        return out + (part @ self._up).to(out.dtype)


def _is_plain(layer: Any) -> bool:
    """Whether it is a product and, beside it, two smaller ones for each adapter."""
    names = list(layer.lora_A)
    return (
        not layer.lora_embedding_A
        and not layer.merged
        and not getattr(layer, "lora_variant", None)
        and not any(getattr(layer, "use_dora", {}).get(name) for name in names)
        and all(type(layer.lora_A[name]) is torch.nn.Linear for name in names)
        and all(type(layer.lora_B[name]) is torch.nn.Linear and layer.lora_B[name].bias is None for name in names)
    )
