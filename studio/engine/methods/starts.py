"""How LoRA's two matrices start: by chance, by the base's weights, or by the rows; and how what started from the base's
weights becomes a plain LoRA again.

Not here: what else LoRA can be set to (lora).
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import EvaConfig, LoraConfig, get_peft_model, initialize_lora_eva_weights
from peft.tuners.lora.eva import get_eva_state_dict
from peft.utils.integrations import dequantize_module_weight
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers.pytorch_utils import Conv1D

from studio.engine.methods.placing import sizes
from studio.engine.methods.tuning import ADAPTER, Context
from studio.errors import Fault, ModelError, SpecError
from studio.specs import LoraMethod

Start = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""A and B of each layer, by its name in the PeftModel, as they were before the first step."""
CHANGES_THE_BASE = ("pissa", "olora", "corda")
"""Starts that take what the matrices hold out of the base's weights."""
_PREFIX = "base_model.model."
_DAMPING = 0.01
"""Share of a covariance's mean diagonal that is added to it, as in CorDA's own code."""
_ROUNDS = 50
"""Times that EVA may go over its rows."""


def _usual(model: Any, config: LoraConfig, method: LoraMethod, context: Context) -> Any:
    return get_peft_model(model, config)


def _gaussian(model: Any, config: LoraConfig, method: LoraMethod, context: Context) -> Any:
    config.init_lora_weights = "gaussian"
    return get_peft_model(model, config)


def _orthogonal(model: Any, config: LoraConfig, method: LoraMethod, context: Context) -> Any:
    """A and B stand on different halves of a random orthogonal basis, so that B A is zero and neither is.

    PEFT's own gives the matrices the dtype of the base's weights, which are bytes where they are quantised.
    """
    tuned = get_peft_model(model, config)
    for layer in _layers(tuned).values():
        a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
        rank, half = a.shape[0], a.shape[0] // 2
        basis = torch.linalg.qr(torch.randn(rank, rank)).Q
        with torch.no_grad():
            a.copy_(basis[0::2].T @ torch.randn(half, a.shape[1]) / 10)
            b.copy_(torch.randn(b.shape[0], half) @ basis[1::2] / 10)
    _renew_magnitudes(tuned, config)
    return tuned


def _pissa(model: Any, config: LoraConfig, method: LoraMethod, context: Context) -> Any:
    """Source: arXiv:2404.02948; the principal components train, the residual is the base."""
    several = method.init_iterations > 1
    config.init_lora_weights = f"pissa_niter_{method.init_iterations}" if several else "pissa"
    return get_peft_model(model, config)


def _olora(model: Any, config: LoraConfig, method: LoraMethod, context: Context) -> Any:
    """Source: arXiv:2406.01775. PEFT's own takes a Conv1D's weight the wrong way round (0.21)."""
    tuned = get_peft_model(model, config)
    for layer in _layers(tuned).values():
        q, r = torch.linalg.qr(_weight(layer))
        rank = layer.r[ADAPTER]
        _take_out(layer, r[:rank], q[:, :rank])
    return tuned


def _loftq(model: Any, config: LoraConfig, method: LoraMethod, context: Context) -> Any:
    """Source: arXiv:2310.08659, algorithm 1, one alternation: B A is nearest to what rounding took from the weights.

    Further alternations would round the base anew, and the adapter would fit no base that anybody else can load.
    """
    tuned = get_peft_model(model, config)
    with contextlib.ExitStack() as files:
        exact = _stored(context.base, files)
        for name, layer in _layers(tuned).items():
            base = layer.get_base_layer()
            whole = exact(f"{name.removeprefix(_PREFIX)}.weight")
            if issubclass(getattr(base, "source_cls", type(base)), Conv1D):  # quantised as a linear layer
                whole = whole.T
            rounded = _unpacked(base)
            u, s, v = torch.linalg.svd(whole.to(rounded).float() - rounded, full_matrices=False)
            rank = layer.r[ADAPTER]
            root = (s[:rank] / layer.scaling[ADAPTER]).sqrt()
            layer.lora_A[ADAPTER].weight.data.copy_(root[:, None] * v[:rank])
            layer.lora_B[ADAPTER].weight.data.copy_(u[:, :rank] * root)
    _renew_magnitudes(tuned, config)
    return tuned


def _eva(model: Any, config: LoraConfig, method: LoraMethod, context: Context) -> Any:
    """Source: arXiv:2410.07170; A starts as the directions in which a layer's inputs vary most."""
    config.init_lora_weights = "eva"
    config.eva_config = EvaConfig(rho=1.0)  # every layer keeps the rank that it was given
    most = max([config.r, *config.rank_pattern.values()])
    found = get_eva_state_dict(model, _Rows(context, method.init_rows, most), config, show_progress_bar=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="lora with eva initialization used with low_cpu_mem_usage=False")
        tuned = get_peft_model(model, config)
    initialize_lora_eva_weights(
        tuned, eva_state_dict={f"{_PREFIX}{name}": directions for name, directions in found.items()}
    )
    return tuned


def _corda(model: Any, config: LoraConfig, method: LoraMethod, context: Context) -> Any:
    """Source: arXiv:2406.05223, section 3, instruction-previewed: by what the rows' inputs call on most.

    W = U S V' C^-1 with U S V' = W C, where C is the covariance of the layer's inputs; the first components train.
    PEFT's own needs a package that it does not install (0.21).
    """
    tuned = get_peft_model(model, config)
    layers = _layers(tuned)
    for layer, covariance in zip(layers.values(), _covariances(tuned, layers, context, method.init_rows), strict=True):
        u, s, v = torch.linalg.svd(_weight(layer) @ covariance, full_matrices=False)
        rank = layer.r[ADAPTER]
        root = (s[:rank] / layer.scaling[ADAPTER]).sqrt()
        a = torch.linalg.solve(covariance, root[:, None] * v[:rank], left=False)
        _take_out(layer, a, u[:, :rank] * root)
    return tuned


@torch.no_grad()
def _covariances(model: Any, layers: Mapping[str, Any], context: Context, count: int) -> list[torch.Tensor]:
    """X'X of each layer's inputs, with enough on its diagonal that it can be inverted."""
    sums: dict[str, torch.Tensor] = {}

    def watch(name: str) -> Callable[..., None]:
        def look(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            seen = inputs[0].detach().float().flatten(0, -2)
            sums[name] = sums.get(name, 0) + seen.T @ seen

        return look

    hooks = [layer.get_base_layer().register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    was_training = model.training
    model.eval()
    try:
        for row in context.rows(count):
            model(**row)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return [_invertible(sums[name]) for name in layers]


def _invertible(covariance: torch.Tensor) -> torch.Tensor:
    return covariance + _DAMPING * covariance.diagonal().mean() * torch.eye(len(covariance)).to(covariance)


STARTS: Mapping[str, Callable[[Any, LoraConfig, LoraMethod, Context], Any]] = {
    "default": _usual,
    "gaussian": _gaussian,
    "orthogonal": _orthogonal,
    "pissa": _pissa,
    "olora": _olora,
    "loftq": _loftq,
    "eva": _eva,
    "corda": _corda,
}
"""(base model, config, method, Context) -> the PeftModel, started."""


def start_faults(method: LoraMethod, config: LoraConfig, layers: Mapping[str, Any]) -> Iterator[Fault]:
    """What a start cannot do with these layers and ranks; the libraries crash there, or cut the rank without a word."""
    if method.init in ("default", "gaussian"):
        return
    if method.init in CHANGES_THE_BASE and not all(layer.weight.is_floating_point() for layer in layers.values()):
        reason = f"cannot take {method.init}'s start out of its weights"
        yield Fault("quantization.kind", f"is set, and a base that is rounded {reason}. Set it to none.")
        return
    for name, (inputs, outputs) in zip(layers, sizes(layers), strict=True):
        rank = config.rank_pattern.get(name, config.r)
        most = inputs if method.init == "eva" else min(inputs, outputs)
        if method.init == "orthogonal" and rank % 2:
            yield Fault("method.rank", f"is {rank} for {name}, and init orthogonal needs an even one. Change it by 1.")
            return
        if method.init != "orthogonal" and rank > most:
            size = f"{name}, which is {inputs} by {outputs}"
            yield Fault("method.rank", f"is {rank}, but with init {method.init} {size}, can have {most} at most.")
            return


def plain_lora(folder: Path, start: Start) -> None:
    """Rewrite a saved adapter so that plain PEFT loads it onto the plain base.

    W' + s B A with W' = W - s B0 A0 is W + s [B, -B0] [A; A0]: a LoRA of twice the rank and the same scaling. An empty
    start only takes out of the config what would start again where it is opened.
    """
    weights, settings = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    config = json.loads(settings.read_text(encoding="utf-8"))
    config |= {"init_lora_weights": True, "eva_config": None}
    if start:
        tensors = load_file(weights)
        for name, (a, b) in start.items():
            first, second = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
            tensors[first] = torch.cat([tensors[first], a.to(tensors[first])])
            tensors[second] = torch.cat([tensors[second], -b.to(tensors[second])], dim=1)
        save_file(tensors, weights, metadata={"format": "pt"})
        more = math.sqrt(2) if config["use_rslora"] else 2
        config |= {
            "r": 2 * config["r"],
            "lora_alpha": more * config["lora_alpha"],
            "rank_pattern": {name: 2 * rank for name, rank in config["rank_pattern"].items()},
            "alpha_pattern": {name: more * alpha for name, alpha in config["alpha_pattern"].items()},
        }
    settings.write_text(json.dumps(config, indent=2), encoding="utf-8")


def _layers(model: Any) -> dict[str, Any]:
    return {name: module for name, module in model.named_modules() if ADAPTER in getattr(module, "lora_A", {})}


def _weight(layer: Any) -> torch.Tensor:
    """(out, in), in fp32."""
    weight = layer.get_base_layer().weight.data.float()
    return weight.T if layer.fan_in_fan_out else weight


def _take_out(layer: Any, a: torch.Tensor, b: torch.Tensor) -> None:
    """Let the matrices hold a part of the weights, which then stand without it."""
    layer.lora_A[ADAPTER].weight.data.copy_(a)
    layer.lora_B[ADAPTER].weight.data.copy_(b)
    left = _weight(layer) - layer.scaling[ADAPTER] * (b @ a)
    base = layer.get_base_layer().weight
    base.data = (left.T if layer.fan_in_fan_out else left).contiguous().to(base.dtype)


def _renew_magnitudes(model: Any, config: LoraConfig) -> None:
    """DoRA's magnitudes are those of the weights that the model starts with."""
    if config.use_dora:
        for layer in _layers(model).values():
            layer.lora_variant[ADAPTER].init(layer, adapter_name=ADAPTER, config=config)


def _unpacked(layer: Any) -> torch.Tensor:
    """(out, in): the weights that a quantised layer stands for, in fp32.

    Of 8 bits by hand: on a CPU, PEFT's function (0.21) takes the scales away from a layer that has run before.
    """
    if type(layer.weight).__name__ != "Int8Params":
        return dequantize_module_weight(layer).float()
    scales = layer.weight.SCB if layer.state.SCB is None else layer.state.SCB
    return layer.weight.data.float() * scales[:, None] / 127


def _stored(folder: Path, files: contextlib.ExitStack) -> Callable[[str], torch.Tensor]:
    """A reader of the base's weights by name, in full precision, one at a time."""
    where: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        file = files.enter_context(safe_open(path, framework="pt"))
        where |= dict.fromkeys(file.keys(), file)

    def get(name: str) -> torch.Tensor:
        # a file of the inner model alone lacks the outer one's prefix
        for known in (name, re.sub(r"^(model|transformer)\.", "", name)):
            if known in where:
                return where[known].get_tensor(known)
        raise ModelError(f"{folder} holds no weights named {name}, which method.init loftq needs. Set it to default.")

    return get


class _Rows:
    """Batches of rows, each with more tokens than the rank, since EVA passes over smaller ones; over and over."""

    def __init__(self, context: Context, count: int, rank: int):
        self._batches: list[dict[str, torch.Tensor]] = []
        waiting: list[torch.Tensor] = []
        for row in context.rows(count):
            waiting.append(row["input_ids"][0])
            if sum(map(len, waiting)) >= 2 * rank:
                self._batches.append(_padded(waiting))
                waiting = []
        if not self._batches:
            tokens = sum(map(len, waiting))
            reason = f"takes in {tokens} tokens, too few for a rank of {rank} by init eva. Raise it, or lower the rank."
            raise SpecError([Fault("method.init_rows", reason)])

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for _ in range(_ROUNDS):
            yield from self._batches
        raise ModelError(
            f"EVA found no steady directions in the rows in {_ROUNDS} rounds. Raise method.init_rows, lower the rank, "
            "or set method.init to default."
        )


def _padded(rows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows], device=ids.device)
    mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    return {"input_ids": ids, "attention_mask": mask.long()}
