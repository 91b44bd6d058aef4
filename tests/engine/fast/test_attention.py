"""Attention by documents, beside one great mask."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from studio.engine.fast import attention
from studio.engine.fast.documents import Layout

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


def test_without_a_layout_it_is_the_usual_attention():
    sides = [torch.randn(2, 2, 5, 8) for _ in range(3)]
    found, _ = attention.attention(torch.nn.Module(), *sides, None, is_causal=True)
    torch.testing.assert_close(found, scaled_dot_product_attention(*sides, is_causal=True).transpose(1, 2))


def test_capped_logits_are_refused_rather_than_forgotten():
    sides = [torch.randn(1, 2, 5, 8) for _ in range(3)]
    with attention.within(Layout(0, (5,)), torch.device("cpu")), pytest.raises(ValueError):
        attention.attention(torch.nn.Module(), *sides, None, softcap=30.0)
