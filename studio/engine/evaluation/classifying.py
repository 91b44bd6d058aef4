"""What a classifier says of texts: the probability of each label, from batches that are padded on the right.

Not here: training one (studio.engine.stages.classify), and the scores (studio.engine.metrics.classification).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from studio.engine.metrics.classification import confusion, scores
from studio.engine.rows.conversations import Rows

MOST_EXAMINED = 2000
"""Rows of each split that are looked at before and after a run; of more, so many at equal distances."""


def pad_token(model: Any, tokenizer: Any) -> int:
    """The id that fills batches up, which the model is told, because its head reads the last token that is another one.

    That of the model's config, so that whoever loads the outcome with transformers alone gets the same logits.
    """
    config = model.config.get_text_config()
    if config.pad_token_id is None or not 0 <= config.pad_token_id < config.vocab_size:
        config.pad_token_id = model.config.pad_token_id = tokenizer.pad_token_id
    return config.pad_token_id


def padded(rows: Sequence[Sequence[int]], pad: int, place: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
    """input_ids and attention_mask, (B, T) each, of rows of tokens."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=place)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=place)
    return {"input_ids": ids, "attention_mask": mask}


@torch.inference_mode()
def probabilities(
    model: Any, rows: Sequence[Sequence[int]], *, pad: int, batch_size: int, context: Any = nullcontext
) -> list[list[float]]:
    """The probability of each label for each row of tokens.

    Rows of about the same length go together, so that little is padding. context: within which the model runs.
    """
    place = next(model.parameters()).device
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    found: list[list[float]] = [[]] * len(rows)
    was_training = model.training
    model.eval()
    try:
        for begin in range(0, len(order), batch_size):
            numbers = order[begin : begin + batch_size]
            with context():
                logits = model(**padded([rows[number] for number in numbers], pad, place)).logits
            for number, each in zip(numbers, logits.float().softmax(-1).tolist(), strict=True):
                found[number] = each
    finally:
        model.train(was_training)
    return found


def examine(trainer: Any, rows: Rows) -> dict[str, dict[str, float]]:
    """Accuracy and rows of what is trained on, validated by and tested by, by the name of each, as the model is now."""
    pad, labels = trainer.pad, range(trainer.model.config.num_labels)
    found = {}
    for name, part in _parts(rows):
        said = probabilities(
            trainer.model,
            part["input_ids"],
            pad=pad,
            batch_size=trainer.args.per_device_eval_batch_size,
            context=lambda: _arithmetic(trainer.args),
        )
        guesses = [str(max(labels, key=each.__getitem__)) for each in said]
        found[name] = scores(confusion(zip(map(str, part["labels"]), guesses, strict=True)))
    return found


def _parts(rows: Rows) -> Iterator[tuple[str, dict[str, list[Any]]]]:
    for name, part in (("train", rows.train), ("validation", rows.held), ("test", rows.tested)):
        if part is not None:
            yield name, part[range(0, len(part), -(-len(part) // MOST_EXAMINED))]


def _arithmetic(arguments: Any) -> AbstractContextManager[Any]:
    """The precision in which the trainer computes."""
    dtype = torch.bfloat16 if arguments.bf16 else torch.float16
    return torch.autocast(arguments.device.type, dtype=dtype, enabled=arguments.bf16 or arguments.fp16)
