"""AdaLoRA: LoRA whose ranks are shared out among the layers while it trains. Not here: LoRA itself (lora)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import AdaLoraConfig, LoraConfig, get_peft_model
from peft.tuners.adalora.layer import AdaLoraLayer
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback
from transformers.pytorch_utils import Conv1D

from studio.engine.methods.placing import chosen, placed
from studio.engine.methods.tuning import ADAPTER, Context, Tuning, save_adapter, set_trainable, trainable
from studio.specs import AdaLoraMethod

_SCORES, _SPREAD, _KEPT = "importance:", "uncertainty:", "kept:"
"""Before the names of what the allocator remembers, in a checkpoint's state."""


def adalora(method: AdaLoraMethod) -> Tuning:
    """Source: arXiv:2303.10512. What it leaves is a plain LoRA: P diag(Λ) Q is B A with the values taken into A."""

    def config(model: Any, context: Context) -> AdaLoraConfig:
        layers = chosen(method, model).values()
        return AdaLoraConfig(
            **placed(method, model),
            task_type=context.task,
            target_r=method.rank,
            init_r=method.init_rank,
            lora_alpha=method.alpha,
            lora_dropout=method.dropout,
            deltaT=method.every_steps,
            orth_reg_weight=0.0,  # PEFT adds it to the loss of the model, which not every trainer uses
            total_step=1,  # until the trainer has counted
            fan_in_fan_out=2 * sum(isinstance(layer, Conv1D) for layer in layers) > len(layers),
        )

    def loss(usual: Callable[..., Any], model: Any, inputs: Any, share: float) -> torch.Tensor:
        term = share * method.orthogonality * unevenness(model)
        # its gradient alone, so that the loss that is told compares with validation's
        return usual(model, inputs) + term - term.detach()

    def attach(model: Any, context: Context) -> Any:
        tuned = get_peft_model(model, config(model, context))
        for name, parameter in tuned.named_parameters():
            if ".ranknum." in name:  # PEFT lets it train on a 4-bit base (0.21)
                parameter.requires_grad_(False)
        return tuned

    return Tuning(
        attach,
        save=_save,
        callbacks=lambda context: [_Budget(method)],
        loss=loss if method.orthogonality else None,
        state=_state,
        restore=_restore,
    )


def schedule(total: int, *, warmup_share: float, final_share: float) -> tuple[int, int] | None:
    """(steps before the first cut, steps after the last one); None: too few steps to cut anything."""
    if total < 3:
        return None
    final = min(int(final_share * total), total - 2)
    return min(int(warmup_share * total), total - final - 1), final


def unevenness(model: Any) -> torch.Tensor:
    """How far P and Q are from orthogonal: the mean Frobenius norm of P'P - I and QQ' - I (equation 4)."""
    terms = []
    for name, tensor in model.named_parameters():
        if tensor.requires_grad and ".lora_A." in name:
            terms.append(tensor @ tensor.T)
        elif tensor.requires_grad and ".lora_B." in name:
            terms.append(tensor.T @ tensor)
    return torch.stack([(term - torch.eye(len(term)).to(term)).norm() for term in terms]).mean()


class _Budget(TrainerCallback):
    """Cuts ranks between the optimiser's step and the zeroing of its gradients, which it scores them by.

    Steps are counted from 1, so that the last cut comes even where no steps follow it.
    """

    def __init__(self, method: AdaLoraMethod):
        self._method = method
        self._cuts = False

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        shares = {"warmup_share": self._method.warmup_share, "final_share": self._method.final_share}
        found = schedule(state.max_steps, **shares)
        self._cuts = found is not None
        if found is not None:
            config = model.peft_config[ADAPTER]
            config.total_step, (config.tinit, config.tfinal) = state.max_steps, found

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if self._cuts:
            config = model.peft_config[ADAPTER]
            config.rank_pattern = _kept(model)
            model.base_model.update_and_allocate(state.global_step + 1)
            # where PEFT looks for it, it would cut what the trainer saves, and warn of layers that are empty by then
            model.base_model.rankallocator.kept, config.rank_pattern = config.rank_pattern, None


def _kept(model: Any) -> dict[str, list[bool]] | None:
    """The directions that the last cut left in each layer."""
    return getattr(model.base_model.rankallocator, "kept", None)


def _state(model: Any) -> dict[str, torch.Tensor]:
    allocator, pattern = model.base_model.rankallocator, _kept(model) or {}
    return {
        **trainable(model),
        **{_SCORES + name: tensor for name, tensor in allocator.exp_avg_ipt.items()},
        **{_SPREAD + name: tensor for name, tensor in allocator.exp_avg_unc.items()},
        **{_KEPT + name: torch.tensor(kept) for name, kept in pattern.items()},
    }


def _restore(model: Any, state: Mapping[str, torch.Tensor]) -> None:
    set_trainable(model, state)
    allocator, place = model.base_model.rankallocator, next(model.parameters()).device
    allocator.exp_avg_ipt = {name: tensor.to(place) for name, tensor in _marked(state, _SCORES)}
    allocator.exp_avg_unc = {name: tensor.to(place) for name, tensor in _marked(state, _SPREAD)}
    allocator.ipt = {name: torch.zeros_like(tensor) for name, tensor in allocator.exp_avg_ipt.items()}
    allocator.kept = {name: kept.tolist() for name, kept in _marked(state, _KEPT)} or None


def _marked(state: Mapping[str, torch.Tensor], mark: str) -> list[tuple[str, torch.Tensor]]:
    return [(name.removeprefix(mark), tensor) for name, tensor in state.items() if name.startswith(mark)]


def _save(model: Any, folder: Path) -> None:
    """A plain LoRA, without the directions whose value is zero."""
    save_adapter(model, folder)
    weights = folder / "adapter_model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(weights).items() if ".lora_" not in name}
    ranks = {}
    for name, layer in model.named_modules():
        if isinstance(layer, AdaLoraLayer):
            a, b = _factors(layer)
            tensors |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
            ranks[name.removeprefix("base_model.model.")] = len(a)
    save_file(tensors, weights, metadata={"format": "pt"})
    old = model.peft_config[ADAPTER]
    usual = Counter(ranks.values()).most_common(1)[0][0]
    others = {name: rank for name, rank in ranks.items() if rank != usual}
    LoraConfig(
        task_type=old.task_type,
        r=usual,
        lora_alpha=usual,  # the scaling is in A
        rank_pattern=others,
        alpha_pattern=others,
        lora_dropout=old.lora_dropout,
        target_modules=old.target_modules,
        modules_to_save=old.modules_to_save,
        fan_in_fan_out=old.fan_in_fan_out,
        inference_mode=True,
    ).save_pretrained(folder)


def _factors(layer: AdaLoraLayer) -> tuple[torch.Tensor, torch.Tensor]:
    """A and B of the LoRA that does what the layer does. One that does nothing keeps one direction, of zeros."""
    values = layer.lora_E[ADAPTER].detach()
    kept = values[:, 0] != 0
    if not kept.any():
        kept[0] = True
    scaling = layer.scaling[ADAPTER] / (layer.ranknum[ADAPTER].detach() + 1e-5)  # as in its forward pass
    a = (layer.lora_A[ADAPTER].detach() * values * scaling)[kept]
    return a.cpu().contiguous(), layer.lora_B[ADAPTER].detach()[:, kept].cpu().contiguous()
