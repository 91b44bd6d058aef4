"""What a reward model says of answers: one number each, from batches that are padded on the right.

Not here: training one (studio.engine.stages.reward), and the scores of pairs (studio.engine.metrics.pairs).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from studio.data.example import Example
from studio.engine.evaluation.classifying import pad_token, padded
from studio.engine.rows.pairs import answered, policy_of
from studio.specs import TrainSpec
from studio.templates import Template, TextTokenizer
from studio.templates.packed import pack


def texts(
    examples: Sequence[Example], spec: TrainSpec, template: Template, tokenizer: TextTokenizer
) -> list[tuple[list[int], ...]]:
    """The tokens of each prompt with each of its answers, as the run of a reward model saw them; () where it saw none.

    spec: that run's. An example holds two answers (preference) or one (unpaired), and all hold as many.
    """
    encode = partial(pack, template=template, tokenizer=tokenizer, policy=policy_of(spec.template))
    rows = answered(examples, encode, spec.data)
    return [
        tuple([*row.prompt.tolist(), *answer.tolist()] for answer in row.answers) if row.usable else () for row in rows
    ]


@torch.inference_mode()
def rewards(model: Any, rows: Sequence[Sequence[int]], *, tokenizer: Any, batch_size: int = 8) -> list[float]:
    """The score of each row of tokens, in eval mode. tokenizer: transformers' own, for its padding."""
    pad = pad_token(model, tokenizer)
    place = next(model.parameters()).device
    found: list[float] = []
    for begin in range(0, len(rows), batch_size):
        logits = model(**padded(rows[begin : begin + batch_size], pad, place)).logits
        found += logits.float().squeeze(-1).tolist()
    return found
