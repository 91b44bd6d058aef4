"""How likely a model finds the reference answers: loss, perplexity and token accuracy over supervised tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy


@dataclass(frozen=True)
class Likelihood:
    """Sums over supervised tokens. nats: negative log-likelihood. correct: tokens that were the likeliest."""

    nats: float
    tokens: int
    correct: int

    @property
    def loss(self) -> float:
        """Mean nats per supervised token."""
        return self.nats / max(1, self.tokens)

    def scores(self) -> dict[str, float]:
        return {
            "loss": self.loss,
            "perplexity": math.exp(min(self.loss, 700.0)),
            "token_accuracy": self.correct / max(1, self.tokens),
            "tokens": float(self.tokens),
        }


def total(parts: Iterable[Likelihood]) -> Likelihood:
    """All rows as one, each token weighing the same."""
    parts = list(parts)
    return Likelihood(sum(p.nats for p in parts), sum(p.tokens for p in parts), sum(p.correct for p in parts))


@torch.inference_mode()
def likelihoods(model: Any, rows: Sequence[tuple[Sequence[int], Sequence[bool]]]) -> list[Likelihood]:
    """One Likelihood per row of (input_ids, supervised).

    Rows lie end to end in one sequence; position ids that start again at 0 keep them from seeing each other. The head
    runs only where a supervised token is predicted, so memory goes with the answers, not with the vocabulary times
    everything. Where an adapter stands before each row, or looks at all of a sequence, rows go through one by one.
    """
    if _must_be_apart(model):
        return [_alone(model, *row) for row in rows]
    place = next(model.parameters()).device
    ids = [token for row, _ in rows for token in row]
    positions = [position for row, _ in rows for position in range(len(row))]
    targets: list[int] = []  # index of each supervised token in the long sequence
    counts: list[int] = []
    start = 0
    for row, supervised in rows:
        found = [start + index for index in range(1, len(row)) if supervised[index]]
        targets += found
        counts.append(len(found))
        start += len(row)
    if not targets:
        return [Likelihood(0.0, 0, 0) for _ in rows]
    predicting = torch.tensor(targets, device=place) - 1
    logits = (
        model(
            input_ids=torch.tensor([ids], device=place),
            position_ids=torch.tensor([positions], device=place),
            logits_to_keep=predicting,
            use_cache=False,
        )
        .logits[0]
        .float()
    )
    wanted = torch.tensor([ids[index] for index in targets], device=place)
    nats = cross_entropy(logits, wanted, reduction="none").split(counts)
    right = (logits.argmax(-1) == wanted).split(counts)
    return [Likelihood(float(some.sum()), len(some), int(good.sum())) for some, good in zip(nats, right, strict=True)]


def _must_be_apart(model: Any) -> bool:
    config = getattr(model, "active_peft_config", None)
    return config is not None and (config.is_prompt_learning or config.is_adaption_prompt)


def _alone(model: Any, ids: Sequence[int], supervised: Sequence[bool]) -> Likelihood:
    place = next(model.parameters()).device
    targets = [index for index in range(1, len(ids)) if supervised[index]]
    if not targets:
        return Likelihood(0.0, 0, 0)
    # virtual tokens have logits too, before those of the row
    logits = model(input_ids=torch.tensor([list(ids)], device=place), use_cache=False).logits[0, -len(ids) :]
    wanted = torch.tensor([ids[index] for index in targets], device=place)
    logits = logits[torch.tensor(targets, device=place) - 1].float()
    nats = cross_entropy(logits, wanted, reduction="sum")
    return Likelihood(float(nats), len(targets), int((logits.argmax(-1) == wanted).sum()))
