"""Cross-entropy at supervised positions, with its gradient computed in the forward pass, in chunks.

A head that is frozen needs no gradient of its own, so loss and gradient of the hidden states take two matrix products
and never more than one chunk of logits. Not here: heads that scale or cap their logits (path finds them out).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from studio.engine.fast.arena import Room, temporary
from studio.engine.fast.sizes import BLOCK, CHUNK


class Told(NamedTuple):
    """loss: summed nats, with a gradient. right: predicted rightly. entropy: summed nats. each: nats by position."""

    loss: torch.Tensor
    right: torch.Tensor
    entropy: torch.Tensor
    each: torch.Tensor


def cross_entropy(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor) -> Told:
    """Args: hidden: (M, E), at the positions that predict, in the dtype of the products. weight: (V, E), in that one or
    in fewer bits. bias: (V,). targets: (M,), ids.

    weight may train; its gradient is then computed too.
    """
    return Told(*_CrossEntropy.apply(hidden, weight, bias, targets))


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, bias: Any, targets: Any) -> Any:
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        found = [torch.empty(len(hidden), dtype=torch.float32, device=hidden.device) for _ in range(2)]
        right = torch.zeros((), dtype=torch.long, device=hidden.device)
        grads = [
            torch.empty_like(hidden) if need_hidden else None,
            torch.zeros_like(weight, dtype=torch.float32) if need_weight else None,
            torch.zeros_like(bias, dtype=torch.float32) if need_bias else None,
        ]
        size = CHUNK[hidden.device.type]
        for begin in range(0, len(hidden), size):
            part = slice(begin, begin + size)
            with temporary() as room:
                into = [each[part] for each in found]
                right += _chunk(hidden[part], weight, bias, targets[part], into, grads, part, room)
        ctx.save_for_backward(*(each for each in grads if each is not None))
        ctx.needed = [each is not None for each in grads]
        nats, entropy = found[0], found[1].sum()
        ctx.mark_non_differentiable(right, entropy, nats)
        return nats.sum(), right, entropy, nats

    @staticmethod
    def backward(ctx: Any, grad: Any, *_: Any) -> Any:
        saved = iter(ctx.saved_tensors)
        return *(next(saved) * grad if needed else None for needed in ctx.needed), None


def _chunk(
    hidden: Any, weight: Any, bias: Any, targets: Any, found: Any, grads: Any, part: slice, room: Room
) -> torch.Tensor:
    """Fill in nats, entropy and gradients of some positions. Returns: how many were predicted rightly."""
    logits = _logits(hidden, weight, room)
    if bias is not None:
        logits += bias
    largest = logits.amax(-1, keepdim=True)
    wanted = logits.gather(-1, targets[:, None])
    right = (wanted >= largest).sum()
    logits -= largest
    total, weighted = torch.zeros_like(largest), torch.zeros_like(largest[:, 0])
    for block in logits.split(BLOCK, dim=-1):
        with temporary() as inner:
            exponentials = torch.exp(block, out=inner(block))
            total += exponentials.sum(-1, keepdim=True)
            weighted += block.mul_(exponentials).sum(-1)
            block.copy_(exponentials)
    nats, entropy = found
    nats.copy_((largest + total.log() - wanted)[:, 0])
    entropy.copy_(total.log()[:, 0] - weighted / total[:, 0])
    of_hidden, of_weight, of_bias = grads
    if of_hidden is None and of_weight is None and of_bias is None:
        return right
    error = logits.div_(total)
    error.scatter_add_(-1, targets[:, None], torch.full_like(wanted, -1.0))
    if of_bias is not None:
        of_bias += error.sum(0)
    error = error.to(hidden.dtype)
    if of_hidden is not None:
        _back(error, weight, of_hidden[part])
    if of_weight is not None:
        of_weight += error.t() @ hidden
    return right


def _logits(hidden: torch.Tensor, weight: torch.Tensor, room: Room) -> torch.Tensor:
    """hidden weight^T in fp32. A weight that is held in fewer bits is widened block by block."""
    logits = room(hidden, len(hidden), len(weight), dtype=torch.float32)
    if weight.dtype == hidden.dtype:
        return (
            torch.mm(hidden, weight.t(), out=logits) if hidden.dtype == logits.dtype else (hidden @ weight.t()).float()
        )
    for block, rows in zip(logits.split(BLOCK, dim=-1), weight.split(BLOCK), strict=True):
        with temporary() as inner:
            wide = inner(rows, dtype=hidden.dtype).copy_(rows)
            block.copy_(torch.mm(hidden, wide.t(), out=inner(hidden, len(hidden), len(wide))))
    return logits


def _back(error: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
    """error weight, into out."""
    if weight.dtype == error.dtype:
        torch.mm(error, weight, out=out)
        return
    out.zero_()
    for block, rows in zip(error.split(BLOCK, dim=-1), weight.split(BLOCK), strict=True):
        with temporary() as inner:
            out.addmm_(block, inner(rows, dtype=error.dtype).copy_(rows))
