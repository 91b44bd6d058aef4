"""Likelihoods of rows laid end to end equal those of each row alone, as transformers computes them."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from studio.engine.metrics.likelihood import Likelihood, likelihoods, total

ROWS = [
    ([5, 9, 300, 41, 7], [False, False, True, True, True]),
    ([17, 4000, 23, 8, 99, 1200, 7], [False, True, False, False, True, True, False]),
    ([42, 43, 44], [True, True, True]),
    ([1, 2], [True, False]),
]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_each_row_has_the_loss_it_has_alone(tiny, kind):
    model = AutoModelForCausalLM.from_pretrained(tiny(kind), dtype=torch.float32).eval()
    found = likelihoods(model, ROWS)
    for (ids, supervised), one in zip(ROWS, found, strict=True):
        labels = [token if learned else -100 for token, learned in zip(ids, supervised, strict=True)]
        if not any(supervised[1:]):
            assert one == Likelihood(0.0, 0, 0)
            continue
        expected = model(torch.tensor([ids]), labels=torch.tensor([labels])).loss.item()
        assert one.loss == pytest.approx(expected, rel=1e-5)
        assert one.tokens == sum(supervised[1:])


def test_a_token_that_is_likeliest_counts_as_correct(tiny):
    model = AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32).eval()
    ids = [5, 9, 300]
    likeliest = model(torch.tensor([ids])).logits[0, -1].argmax().item()
    (right,) = likelihoods(model, [([*ids, likeliest], [False, False, False, True])])
    (wrong,) = likelihoods(model, [([*ids, (likeliest + 1) % 6400], [False, False, False, True])])
    assert (right.correct, wrong.correct) == (1, 0)


def test_the_total_weighs_every_token_alike():
    both = total([Likelihood(3.0, 1, 1), Likelihood(3.0, 2, 0)])
    assert both.loss == 2.0
    assert both.scores()["perplexity"] == pytest.approx(math.exp(2.0))
    assert both.scores()["token_accuracy"] == pytest.approx(1 / 3)
