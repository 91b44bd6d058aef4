"""Soft prompts: learned vectors before the prompt, or learned keys and values before those of each layer.

Not here: decoding with them (studio.engine.generate).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import (
    MultitaskPromptTuningConfig,
    PeftType,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    PromptTuningInit,
    get_peft_model,
)

from studio.engine.methods.tuning import ADAPTER, Context, Tuning, save_adapter, trainable
from studio.errors import Fault, SpecError
from studio.specs import MultitaskPromptTuningMethod, PrefixTuningMethod, PromptTuningMethod, PTuningMethod


def prompt_tuning(method: PromptTuningMethod) -> Tuning:
    """Source: arXiv:2104.08691, section 2; both starts are those of section 3.2."""

    def attach(model: Any, context: Context) -> Any:
        _fits(method, context)
        config = PromptTuningConfig(
            task_type=context.task,
            num_virtual_tokens=method.virtual_tokens,
            prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB,
        )
        wrapped = get_peft_model(model, config)
        if method.init_text is not None:
            _start_from(wrapped, context.token_ids(method.init_text))
        return wrapped

    return Tuning(attach)


def multitask_prompt_tuning(method: MultitaskPromptTuningMethod) -> Tuning:
    """Each dataset of the run is a task. Source: arXiv:2303.02861, section 3.1."""

    def attach(model: Any, context: Context) -> Any:
        _fits(method, context)
        config = MultitaskPromptTuningConfig(
            task_type=context.task,
            num_virtual_tokens=method.virtual_tokens,
            num_tasks=len(context.spec.data.datasets),
            num_ranks=method.task_rank,
        )
        wrapped = get_peft_model(model, config)
        answer_as(wrapped, ADAPTER)
        return wrapped

    return Tuning(attach)


def p_tuning(method: PTuningMethod) -> Tuning:
    """Source: arXiv:2103.10385, section 3."""

    def config(context: Context) -> PromptEncoderConfig:
        return PromptEncoderConfig(
            task_type=context.task,
            num_virtual_tokens=method.virtual_tokens,
            encoder_reparameterization_type=method.encoder.upper(),
            encoder_hidden_size=method.encoder_hidden_size,
            # the mlp has two hidden layers, always
            encoder_num_layers=method.encoder_layers if method.encoder == "lstm" else 2,
            encoder_dropout=method.encoder_dropout,
        )

    return _encoded(method, config)


def prefix_tuning(method: PrefixTuningMethod) -> Tuning:
    """Source: arXiv:2101.00190, section 4; the projection is that of section 4.3."""

    def config(context: Context) -> PrefixTuningConfig:
        return PrefixTuningConfig(
            task_type=context.task,
            num_virtual_tokens=method.virtual_tokens,
            prefix_projection=method.projection,
            encoder_hidden_size=method.encoder_hidden_size,
        )

    return _encoded(method, config)


def answer_as(model: Any, adapter: str, task: int = 0) -> None:
    """Let a multitask prompt stand for one of its tasks wherever a forward pass names none; others are left alone.

    task: the place of a dataset among those of the run. Each row of a batch that names its task keeps it.
    """
    if model.peft_config[adapter].peft_type != PeftType.MULTITASK_PROMPT_TUNING:
        return

    def named(_encoder: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        tokens, tasks = given
        return tokens, torch.full((len(tokens),), task, device=tokens.device) if tasks is None else tasks

    encoder = model.prompt_encoder[adapter]
    encoder._forward_pre_hooks.clear()
    encoder.register_forward_pre_hook(named)


def _encoded(method: Any, config: Callable[[Context], Any]) -> Tuning:
    """The tuning of a prompt that a network may write: PEFT saves what it wrote, so a checkpoint keeps the network."""

    def attach(model: Any, context: Context) -> Any:
        _fits(method, context)
        return get_peft_model(model, config(context))

    return Tuning(attach, save=_save, state=trainable)


def _save(model: Any, folder: Path) -> None:
    """Without dropout, which would also act on what the network writes into the file."""
    training = model.training
    model.eval()
    save_adapter(model, folder)
    model.train(training)


def _encoder(model: Any) -> torch.nn.Module:
    return model.prompt_encoder[ADAPTER]


def _start_from(model: Any, ids: Sequence[int]) -> None:
    """Put the embeddings of a text into the prompt, repeated or cut to its length."""
    if not ids:
        raise SpecError([Fault("method.init_text", "holds no token. Write a word or two, or empty it.")])
    prompt = _encoder(model).embedding.weight
    places = torch.tensor([ids[place % len(ids)] for place in range(len(prompt))], device=prompt.device)
    with torch.no_grad():
        prompt.copy_(model.get_input_embeddings()(places))


def _fits(method: Any, context: Context) -> None:
    """Virtual tokens take positions of the model. Raises: SpecError: there are not enough."""
    config = json.loads((context.base / "config.json").read_text(encoding="utf-8"))
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    wanted = context.spec.data.max_length + method.virtual_tokens
    if positions and wanted > positions:
        told = f"and data.max_length take {wanted} positions together, but the model has {positions}"
        raise SpecError([Fault("method.virtual_tokens", f"{told}. Lower one of them.")])
