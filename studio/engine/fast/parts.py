"""A pass as attention computes it: its documents in blocks of like length, each padded to the longest.

Not here: what a pass is (documents), and computing it (attention).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from studio.engine.fast.documents import Layout
from studio.engine.fast.varlen import Spans

TOGETHER = 0.7
"""Documents at least this share of the longest one's length are padded to it: fewer kernels for a little waste."""
SMALL = 64
"""Up to this many tokens all documents are: then starting a kernel costs more than padding."""


@dataclass(frozen=True)
class Block:
    """Documents that are computed together, each padded to the longest. count: how many; length: of the longest.

    prefix: how many tokens before them they see as well.
    """

    count: int
    length: int
    prefix: int


class Parts:
    """A layout as attention computes it: which tokens stand where in blocks of padded documents.

    asking: (Q,) the token at each place of the blocks. seen: (K,) those that are seen, the prefix once a document.
    Places of padding, which `padding` lists for asking, name any token. asked, own: (T,) where each token stands in the
    two. prefixes: (N, prefix) every copy of the prefix in seen. spans: the same for a kernel that takes them all.
    """

    def __init__(self, layout: Layout, device: torch.device):
        self.layout, self.device = layout, device
        self.blocks, asking, seen, real, real_seen = [], [], [], [], []
        for spans, prefix in _together(layout):
            length = spans[0][1] - spans[0][0]
            self.blocks.append(Block(len(spans), length, prefix))
            for begin, end in spans:
                asking.append(torch.arange(begin, begin + length).clamp(max=end - 1))
                real.append(torch.arange(length) < end - begin)
                seen.append(torch.cat([torch.arange(prefix), asking[-1]]))
                real_seen.append(torch.cat([torch.zeros(prefix, dtype=torch.bool), real[-1]]))
        begins = torch.tensor([0, *map(len, seen[:-1])]).cumsum(0)
        self.asking, self.seen = torch.cat(asking).to(device), torch.cat(seen).to(device)
        self.asked = _inverse(torch.cat(asking), torch.cat(real), layout.tokens).to(device)
        self.own = _inverse(torch.cat(seen), torch.cat(real_seen), layout.tokens).to(device)
        self.padding = (~torch.cat(real)).nonzero()[:, 0].to(device)
        self.prefixes = (begins[:, None] + torch.arange(layout.prefix)).to(device)
        self.spans = Spans(layout, device)
        self._masks: dict[Any, torch.Tensor] = {}

    def mask(self, block: Block, window: int | None, dtype: torch.dtype = torch.bool) -> torch.Tensor | None:
        """(length, prefix + length), true or 0 where a token of a document sees, else false or minus infinity.

        Padding comes last and is seen by none. None: each token sees itself and all before.
        """
        prefix, length = block.prefix, block.length
        if window is not None and prefix + length <= window:
            window = None
        if not prefix and window is None:
            return None
        kept = self._masks.get((prefix, length, window, dtype))
        if kept is None:
            own = torch.arange(prefix, prefix + length, device=self.device)[:, None]
            seen = torch.arange(prefix + length, device=self.device)[None]
            kept = seen <= own
            if window is not None:
                kept &= seen > own - window
            if dtype != torch.bool:
                kept = torch.zeros_like(kept, dtype=dtype).masked_fill_(~kept, -torch.inf)
            self._masks[prefix, length, window, dtype] = kept
        return kept

    def split(self, asking: torch.Tensor, heads: int) -> Iterator[torch.Tensor]:
        """(Q, H D) -> (count, H, length, D) for each block."""
        yield from self._split(asking, heads, [block.length for block in self.blocks])

    def split_seen(self, seen: torch.Tensor, heads: int) -> Iterator[torch.Tensor]:
        """(K, H D) -> (count, H, prefix + length, D) for each block."""
        yield from self._split(seen, heads, [block.prefix + block.length for block in self.blocks])

    def _split(self, flat: torch.Tensor, heads: int, lengths: list[int]) -> Iterator[torch.Tensor]:
        counts = [block.count for block in self.blocks]
        sizes = [count * length for count, length in zip(counts, lengths, strict=True)]
        for part, count, length in zip(flat.split(sizes), counts, lengths, strict=True):
            yield part.view(count, length, heads, -1).transpose(1, 2)


def _together(layout: Layout) -> Iterator[tuple[list[tuple[int, int]], int]]:
    """Spans of documents that are computed together, the longest first, and the prefix that they see."""
    if layout.prefix:
        yield [(0, layout.prefix)], 0
    group: list[tuple[int, int]] = []
    longest = 0
    for begin, end in sorted(layout.spans(), key=lambda span: span[0] - span[1]):
        if group and longest > SMALL and end - begin < TOGETHER * longest:
            yield group, layout.prefix
            group = []
        longest = longest if group else end - begin
        group.append((begin, end))
    yield group, layout.prefix


def _inverse(places: torch.Tensor, real: torch.Tensor, count: int) -> torch.Tensor:
    """Where each of `count` tokens stands among places, of which only the real ones count."""
    found = torch.empty(count, dtype=torch.long)
    at = real.nonzero()[:, 0]
    found[places[at]] = at
    return found
