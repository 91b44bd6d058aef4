"""LoRA and its variants: where it stands, how it is scaled, and which optimiser trains it.

Not here: other starts than the usual one (starts), and layers that hold query, key and value in one (fused).
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils.other import TrainableTokensWrapper, get_pattern_key
from transformers.pytorch_utils import Conv1D

from studio.engine.methods.fused import Fused
from studio.engine.methods.placing import chosen, names_of
from studio.engine.methods.starts import CHANGES_THE_BASE, STARTS, Start, plain_lora, start_faults
from studio.engine.methods.tokens import TokenHead, single_tokens
from studio.engine.methods.tuning import ADAPTER, Context, Tuning, save_adapter, trainable
from studio.errors import Fault, SpecError
from studio.specs import LoraMethod

HEAD = "score"
"""transformers' name for the head of a model that classifies."""
_HEADS = ("lm_head", "embed_out", "output_layer", "output")


def lora(method: LoraMethod) -> Tuning:
    """Source: arXiv:2106.09685; all linear layers as in QLoRA, arXiv:2305.14314, section 4."""
    fused = Fused() if method.split_fused else None
    start: Start = {}

    def attach(model: Any, context: Context) -> Any:
        layers = _layers(method, model, context)
        config = _config(method, model, layers, context)
        if faults := [*_pattern_faults(method, layers), *start_faults(method, config, layers)]:
            raise SpecError(faults)
        if fused is not None:
            fused.widen(config, model, layers, context)
        with warnings.catch_warnings():
            # of a model with layers of both kinds; PEFT sets it right for each
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
            tuned = STARTS[method.init](model, config, method, context)
        if method.init in CHANGES_THE_BASE:
            start.clear()
            start.update(_matrices(tuned))
        if fused is not None:
            fused.keep_apart(tuned)
        base = tuned.get_base_model()
        if isinstance(head := base.get_output_embeddings(), TrainableTokensWrapper):
            shared = TokenHead(head.token_adapter)
            base.get_output_embeddings = lambda: shared
        return tuned

    def save(model: Any, folder: Path) -> None:
        save_adapter(model, folder)
        if method.init in KEPT_APART:
            plain_lora(folder, start)

    return Tuning(
        attach=attach,
        save=save,
        optimizer=None if method.loraplus_ratio is None else _faster_b(method.loraplus_ratio),
        fused_loss=not _on_the_head(method),
        state=trainable if method.init in KEPT_APART or _on_the_head(method) else None,
        count=None if fused is None else fused.count,
    )


KEPT_APART = (*CHANGES_THE_BASE, "eva")
"""Starts whose adapter_config.json, as PEFT writes it, would start again wherever it is opened."""


def _config(method: LoraMethod, model: Any, layers: Mapping[str, Any], context: Context) -> LoraConfig:
    conv = sum(isinstance(layer, Conv1D) for layer in layers.values())
    whole = list(method.modules_to_save)
    return LoraConfig(
        task_type=context.task,
        r=method.rank,
        lora_alpha=plain_number(method.alpha),
        lora_dropout=method.dropout,
        target_modules=names_of(layers, model),
        modules_to_save=whole or None,
        rank_pattern=_by_name(method.rank_pattern, layers),
        alpha_pattern={name: plain_number(alpha) for name, alpha in _by_name(method.alpha_pattern, layers).items()},
        fan_in_fan_out=2 * conv > len(layers),
        use_rslora=method.rslora,
        use_dora=method.dora,
        trainable_token_indices=single_tokens(method.train_tokens, context) or None,
        # else a model that shares one weight between embeddings and head would no longer be one when it is merged
        ensure_weight_tying=bool(whole) and _shares_embeddings(model, whole),
    )


def plain_number(value: float) -> float | int:
    """16 instead of 16.0, as other programs write an alpha."""
    return int(value) if float(value).is_integer() else value


def _layers(method: LoraMethod, model: Any, context: Context) -> dict[str, Any]:
    layers = chosen(method, model)
    head = getattr(model, HEAD, None)
    if context.task is None and head is not None:  # a head whose weights stay, with an adapter beside them
        layers[HEAD] = head
    return layers


def _shares_embeddings(model: Any, whole: list[str]) -> bool:
    """Whether one of them is an end of a shared weight. PEFT knows the ends by these two names alone."""
    shared = model.config.get_text_config().tie_word_embeddings
    return shared and any(name.rpartition(".")[2] in ("embed_tokens", "lm_head") for name in whole)


def _by_name(pattern: Mapping[str, Any], layers: Mapping[str, Any]) -> dict[str, Any]:
    """The layers that a pattern is about, by their whole names, each as the first entry that fits says.

    PEFT goes by the order too, but sorts the entries when it saves them.
    """
    found = {name: pattern.get(get_pattern_key(pattern, name)) for name in layers}
    return {name: value for name, value in found.items() if value is not None}


def _pattern_faults(method: LoraMethod, layers: Mapping[str, Any]) -> Iterator[Fault]:
    """PEFT passes over a name that stands for nothing."""
    for field in ("rank_pattern", "alpha_pattern"):
        for key in getattr(method, field):
            try:
                known = any(get_pattern_key([key], name) == key for name in layers)
            except re.error as error:
                yield Fault(f"method.{field}", f"'{key}' is no regular expression: {error}.")
                continue
            if not known:
                ends = sorted({name.rpartition(".")[2] for name in layers})
                yield Fault(f"method.{field}", f"'{key}' names no adapted layer. Adapted: {', '.join(ends[:20])}.")


def _matrices(model: Any) -> Start:
    """A and B of every layer, as they are now."""
    layers = {name: module for name, module in model.named_modules() if ADAPTER in getattr(module, "lora_A", {})}
    return {
        name: (_copy(layer.lora_A[ADAPTER].weight), _copy(layer.lora_B[ADAPTER].weight))
        for name, layer in layers.items()
    }


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().clone()


def _on_the_head(method: LoraMethod) -> bool:
    patterns = [word.removeprefix("re:") for word in method.target_modules if word.startswith("re:")]
    return any(
        head in method.target_modules or any(re.fullmatch(pattern, head) for pattern in patterns) for head in _HEADS
    )


def _faster_b(ratio: float) -> Callable[[Any], torch.optim.Optimizer]:
    """Source: LoRA+, arXiv:2402.12354, section 4: B learns `ratio` times faster than all else."""

    def optimizer(trainer: Any) -> torch.optim.Optimizer:
        kind, options = trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
        decayed = set(trainer.get_decay_parameter_names(trainer.model))
        groups: dict[tuple[bool, bool], list[Any]] = defaultdict(list)
        for name, parameter in trainer.model.named_parameters():
            if parameter.requires_grad:
                groups[".lora_B." in name, name not in decayed].append(parameter)
        return kind(
            [
                {
                    "params": parameters,
                    "lr": options["lr"] * (ratio if fast else 1),
                    "weight_decay": 0.0 if spared else trainer.args.weight_decay,
                }
                for (fast, spared), parameters in sorted(groups.items(), key=lambda item: item[0])
            ],
            **options,
        )

    return optimizer
