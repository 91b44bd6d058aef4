"""Quantises to 4 bits on a CPU: every bit as bitsandbytes has it, in a quarter of the time.

bitsandbytes (0.50) has no kernel of its own for this on a CPU and searches the levels' borders anew for each weight,
over whole matrices at a time. Importing this module registers another kernel. Not here: the way back, which it has.
Source: QLoRA, arXiv:2305.14314, appendix E (the levels).
"""

from __future__ import annotations

from functools import cache

import torch
from bitsandbytes.functional import get_4bit_type

CELLS = 256
"""Equal parts of -1 to 1, so narrow that at most one border of NF4 lies in each: a look-up and one comparison do."""
PART = 2**18
"""Weights at a time: what is computed on the way then stays in the cache."""


@torch.library.register_kernel("bitsandbytes::quantize_4bit", "cpu")
def quantize_4bit(
    weights: torch.Tensor, blocksize: int, quant_type: str, quant_storage: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Any shape and floating dtype. Returns: two levels a byte, (half as many, 1), in dtype quant_storage; and the
    largest magnitude of each block, fp32, (blocks,)."""
    flat = weights.reshape(-1)
    count = flat.numel()
    whole = count - count % blocksize
    levels = torch.empty(count + count % 2, dtype=torch.uint8)
    largest = torch.empty(-(-count // blocksize))
    step = max(PART // blocksize, 1) * blocksize
    for start in range(0, whole, step):
        part = flat[start : min(start + step, whole)].float().view(-1, blocksize)
        magnitude = part.abs().amax(-1)
        largest[start // blocksize : start // blocksize + len(magnitude)] = magnitude
        scaled = part * (1.0 / magnitude.clamp(min=1e-38)).view(-1, 1)
        levels[start : start + part.numel()] = _levels(scaled.clamp_(-1, 1).view(-1), quant_type)
    if whole < count:
        rest = flat[whole:].float()
        largest[-1] = rest.abs().max().clamp(min=1e-38)
        levels[whole:count] = _levels((rest / largest[-1]).clamp(-1, 1), quant_type)
    if count % 2:
        levels[count:] = _levels(torch.zeros(1), quant_type)
    packed = ((levels[::2] << 4) | levels[1::2]).unsqueeze(1)
    return (packed if quant_storage == torch.uint8 else packed.squeeze().view(quant_storage).unsqueeze(1)), largest


def _levels(scaled: torch.Tensor, quant_type: str) -> torch.Tensor:
    """The number of the level nearest to each, uint8. scaled: fp32 in -1 to 1, one dimension."""
    borders, order = _borders(quant_type)
    if quant_type != "nf4":  # FP4 has borders too near each other for the table
        return order[torch.bucketize(scaled, borders, out_int32=True)].to(torch.uint8)
    below, border = _table()
    cells = _cells(scaled)
    levels = below.index_select(0, cells)
    levels += scaled > border.index_select(0, cells)
    return levels


@cache
def _borders(quant_type: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Halfway between neighbouring levels, rising; and which level each interval is."""
    code = get_4bit_type(quant_type, device="cpu")
    order = torch.argsort(code)
    return (code[order[:-1]] + code[order[1:]]) / 2, order


@cache
def _table() -> tuple[torch.Tensor, torch.Tensor]:
    """Of each cell: the borders below it, and the one in it, or a number that nothing exceeds."""
    borders, _ = _borders("nf4")
    places = _cells(borders)
    below = (places.view(1, -1) < torch.arange(CELLS).view(-1, 1)).sum(1).to(torch.uint8)
    border = torch.full((CELLS,), 2.0)
    border[places] = borders
    return below, border


def _cells(scaled: torch.Tensor) -> torch.Tensor:
    return ((scaled + 1) * (CELLS / 2)).to(torch.int32).clamp_(0, CELLS - 1)
