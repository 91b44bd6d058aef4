"""Loss and gradients at supervised positions, beside torch's own."""

import pytest
import torch
from torch.nn.functional import cross_entropy as reference

from studio.engine.fast import cross_entropy as module
from studio.engine.fast.cross_entropy import cross_entropy


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", {"cpu": 4})
    monkeypatch.setattr(module, "BLOCK", 3)


def sides(count=10, bias=False):
    torch.manual_seed(0)
    hidden = torch.randn(count, 6, requires_grad=True)
    weight = torch.randn(11, 6, requires_grad=True)
    return hidden, weight, torch.randn(11, requires_grad=True) if bias else None, torch.randint(11, (count,))


@pytest.mark.parametrize("bias", [False, True])
def test_loss_and_every_gradient_are_those_of_torch(bias):
    hidden, weight, offset, targets = sides(bias=bias)
    parameters = [each for each in (hidden, weight, offset) if each is not None]
    wanted = reference(hidden @ weight.t() + (offset if bias else 0), targets, reduction="sum")
    found = cross_entropy(hidden, weight, offset, targets)
    torch.testing.assert_close(found.loss, wanted)
    gradients = torch.autograd.grad(found.loss / 7, parameters)
    torch.testing.assert_close(gradients, torch.autograd.grad(wanted / 7, parameters))


def test_what_is_told_beside_it_is_right():
    hidden, weight, _, targets = sides()
    logits = hidden @ weight.t()
    found = cross_entropy(hidden, weight, None, targets)
    torch.testing.assert_close(found.each, reference(logits, targets, reduction="none"))
    torch.testing.assert_close(found.entropy, torch.distributions.Categorical(logits=logits).entropy().sum())
    assert int(found.right) == int((logits.argmax(-1) == targets).sum())


def test_a_frozen_head_gets_no_gradient_and_nothing_learned_costs_nothing():
    hidden, weight, _, targets = sides()
    found = cross_entropy(hidden, weight.detach(), None, targets)
    found.loss.backward()
    assert hidden.grad is not None and weight.grad is None
    assert float(cross_entropy(hidden[:0], weight.detach(), None, targets[:0]).loss) == 0.0


def test_a_weight_held_in_fewer_bits_is_multiplied_in_the_bits_of_the_hidden_states():
    hidden, weight, _, targets = sides()
    held = weight.detach().bfloat16()
    wanted = reference(hidden @ held.float().t(), targets, reduction="sum")
    found = cross_entropy(hidden, held, None, targets)
    torch.testing.assert_close(found.loss, wanted)
    torch.testing.assert_close(torch.autograd.grad(found.loss, hidden), torch.autograd.grad(wanted, hidden))
