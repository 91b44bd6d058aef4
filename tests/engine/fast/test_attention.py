"""Attention by documents, beside one great mask."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from studio.engine.fast import attention, varlen
from studio.engine.fast.documents import Layout
from studio.engine.fast.parts import Parts

LAYOUTS = [
    Layout(0, (5,)),
    Layout(0, (7, 3, 9, 1)),
    Layout(6, (5, 1, 8)),
    Layout(24, (100, 30, 99, 70, 10)),
    Layout(3, (2, 2)),
]


def seen_by(layout, window):
    """(T, T): true where the row's token sees the column's, by position and document."""
    documents = [(-1, layout.prefix), *enumerate(layout.lengths)]
    begins = [0, *[layout.prefix] * len(layout.lengths)]
    place = torch.cat([torch.arange(begin, begin + count) for begin, (_, count) in zip(begins, documents, strict=True)])
    document = torch.cat([torch.full((count,), number) for number, count in documents])
    seen = (place[None] <= place[:, None]) & ((document[None] == document[:, None]) | (document[None] == -1))
    return seen & (place[None] > place[:, None] - window) if window else seen


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("heads", [(6, 2), (4, 4)])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_documents_see_themselves_and_the_prefix_forward_and_backward(layout, heads, window):
    torch.manual_seed(0)
    query, key, value = sides = [
        torch.randn(1, count, layout.tokens, 8, dtype=torch.float64, requires_grad=True)
        for count in (heads[0], heads[1], heads[1])
    ]
    wanted = scaled_dot_product_attention(*sides, attn_mask=seen_by(layout, window), enable_gqa=True).transpose(1, 2)
    direction = torch.randn_like(wanted)
    gradients = torch.autograd.grad(wanted, sides, direction)
    with attention.within(layout, query.device):
        found, _ = attention.attention(torch.nn.Module(), query, key, value, None, sliding_window=window)
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(torch.autograd.grad(found, sides, direction), gradients)


def in_one(query, key, value, spans, scale, window):
    """A kernel of documents of any lengths as CUDA libraries have it: causal, and aligned at the documents' ends."""
    asking, seeing = ([int(at) for at in each] for each in spans.begins)
    outs = []
    for number in range(len(asking) - 1):
        own, seen = slice(*asking[number : number + 2]), slice(*seeing[number : number + 2])
        sides = [side.transpose(0, 1)[None] for side in (query[own], key[seen], value[seen])]
        count, total = len(query[own]), len(key[seen])
        assert count <= spans.longest[0] and total <= spans.longest[1]
        place, other = torch.arange(total - count, total)[:, None], torch.arange(total)[None]
        mask = (other <= place) & (other > place - (window or total + 1))
        outs.append(scaled_dot_product_attention(*sides, attn_mask=mask, scale=scale, enable_gqa=True)[0])
    return torch.cat([out.transpose(0, 1) for out in outs])


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("heads", [(6, 2), (4, 4)])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_kernel_that_takes_all_documents_is_told_the_same(layout, heads, window):
    torch.manual_seed(0)
    sides = [
        torch.randn(1, count, layout.tokens, 8, dtype=torch.float64, requires_grad=True)
        for count in (heads[0], heads[1], heads[1])
    ]
    parts = Parts(layout, torch.device("cpu"))
    wanted = attention._by_length(parts, *sides, 0.3, 0.0, window)
    found = attention._in_one(in_one, parts.spans, *sides, scale=0.3, window=window)
    torch.testing.assert_close(found, wanted)
    direction = torch.randn_like(wanted)
    gradients = torch.autograd.grad(wanted, sides, direction)
    torch.testing.assert_close(torch.autograd.grad(found, sides, direction), gradients)


@pytest.fixture
def contest(monkeypatch):
    """As on a GPU that knows one kernel. Gives: the names that contests were held for, and the clock's say."""
    held = []

    def quickest(usual, others, given):
        held.append(sorted(others))
        torch.testing.assert_close(usual(*given), others["in one"](*given), atol=1e-5, rtol=1e-5)
        return "in one"

    monkeypatch.setattr(attention, "_FORWARD", None)
    monkeypatch.setattr(attention, "_choices", {})
    monkeypatch.setattr(attention, "quickest", quickest)
    monkeypatch.setattr(varlen, "kernels", lambda query, dropout: {} if dropout else {"in one": in_one})
    return held


def test_a_contest_is_held_once_for_each_kind_of_layer(contest):
    layout = Layout(6, (5, 1, 8))
    sides = [torch.randn(1, count, layout.tokens, 8) for count in (6, 2, 2)]
    found = []
    with attention.within(layout, torch.device("cpu")):
        for window in (None, None, 4, None):
            found.append(attention.attention(torch.nn.Module(), *sides, None, sliding_window=window)[0])
    assert contest == [["in one"]] * 2
    assert attention.chosen() == ["in one"]
    for window, out in zip((None, 4), found[1:3], strict=True):
        wanted = scaled_dot_product_attention(*sides, attn_mask=seen_by(layout, window), enable_gqa=True)
        torch.testing.assert_close(out, wanted.transpose(1, 2))


def test_without_a_kernel_that_fits_documents_go_by_length(contest):
    sides = [torch.randn(1, 2, 5, 8) for _ in range(3)]
    with attention.within(Layout(0, (5,)), torch.device("cpu")):
        attention.attention(torch.nn.Module(), *sides, None, dropout=0.5)
    assert not contest and not attention.chosen()


def test_kernels_for_gpus_are_not_asked_on_a_cpu():
    assert not varlen.kernels(torch.randn(1, 2, 5, 8, dtype=torch.bfloat16), 0.0)


@pytest.mark.gpu
@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_the_kernels_of_this_gpu_give_the_same(layout, window):
    query = torch.empty(1, 6, 1, 64, dtype=torch.bfloat16, device="cuda")
    kernels = varlen.kernels(query, 0.0)
    assert "torch varlen" in kernels
    sides = [torch.randn(1, count, layout.tokens, 64, device="cuda", requires_grad=True) for count in (6, 2, 2)]
    parts = Parts(layout, query.device)
    wanted = attention._by_length(parts, *sides, None, 0.0, window)
    direction = torch.randn_like(wanted)
    gradients = torch.autograd.grad(wanted, sides, direction)
    for kernel in kernels.values():
        narrow = [side.detach().bfloat16().requires_grad_() for side in sides]
        found = attention._in_one(kernel, parts.spans, *narrow, scale=None, window=window)
        torch.testing.assert_close(found.float(), wanted, atol=3e-2, rtol=3e-2)
        grads = torch.autograd.grad(found, narrow, direction.bfloat16())
        for ours, exact in zip(grads, gradients, strict=True):
            torch.testing.assert_close(ours.float(), exact, atol=8e-2, rtol=8e-2)


def test_without_a_layout_it_is_the_usual_attention():
    sides = [torch.randn(2, 2, 5, 8) for _ in range(3)]
    found, _ = attention.attention(torch.nn.Module(), *sides, None, is_causal=True)
    torch.testing.assert_close(found, scaled_dot_product_attention(*sides, is_causal=True).transpose(1, 2))


def test_capped_logits_are_refused_rather_than_forgotten():
    sides = [torch.randn(1, 2, 5, 8) for _ in range(3)]
    with attention.within(Layout(0, (5,)), torch.device("cpu")), pytest.raises(ValueError):
        attention.attention(torch.nn.Module(), *sides, None, softcap=30.0)
