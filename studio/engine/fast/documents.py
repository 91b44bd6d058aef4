"""Rows as documents that lie end to end in one forward pass, with what all of them begin with computed once.

Conversations of one template begin with the same tokens, such as its system text. Under causal attention these tokens
see nothing else, so their hidden states are the same in every row, and one copy serves all: the gradients that rows
send back into it add up, as they would in the weights. What stands behind the last token that predicts, such as the end
of the answer itself, is seen by nobody and is left out. Not here: how attention keeps documents apart (attention).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from studio.templates.packed import IGNORED

WORTHWHILE = 4
"""A shorter common beginning is not worth a pass with more parts."""


@dataclass(frozen=True)
class Document:
    """One row: ids, (n,), and labels, (n,) or one longer; a label is IGNORED or the id at its own place. All int64."""

    ids: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def learned(self) -> int:
        """How many of its tokens are learned."""
        return int((self.labels[1:] != IGNORED).sum())

    @property
    def first_learned(self) -> int:
        """The place of the first token that is learned; the length where there is none."""
        learned = (self.labels[1:] != IGNORED).nonzero()
        return int(learned[0]) + 1 if len(learned) else len(self)


@dataclass(frozen=True)
class Layout:
    """How documents lie in a pass: `prefix` tokens that all begin with, then what is left of each, in tokens."""

    prefix: int
    lengths: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return self.prefix + sum(self.lengths)

    def spans(self) -> Iterator[tuple[int, int]]:
        """(begin, end) of what is left of each document."""
        begin = self.prefix
        for length in self.lengths:
            yield begin, begin + length
            begin += length


@dataclass(frozen=True)
class Pass:
    """One forward pass.

    ids, positions: (1, T). places: (M,), where the hidden states stand that predict; targets: (M,), what they should
    predict, in the order of the documents. counts: how many targets each document has.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    places: torch.Tensor
    targets: torch.Tensor
    layout: Layout
    counts: tuple[int, ...]

    def to(self, device: torch.device) -> Pass:
        moved = (each.to(device) for each in (self.ids, self.positions, self.places, self.targets))
        return Pass(*moved, layout=self.layout, counts=self.counts)


def without_end(document: Document) -> Document:
    """Up to the last token that is learned, with that one as a label alone; all of it where nothing is learned."""
    learned = (document.labels[1:] != IGNORED).nonzero()
    if not len(learned):
        return document
    last = int(learned[-1]) + 1
    return Document(document.ids[:last], document.labels[: last + 1])


def common_beginning(documents: Sequence[Document]) -> int:
    """How many tokens all documents begin with, short of the place from which one of them predicts."""
    if len(documents) < 2:
        return 0
    most = min(min(each.first_learned, len(each)) - 1 for each in documents)
    if most < WORTHWHILE:
        return 0
    first = documents[0].ids[:most]
    same = torch.stack([each.ids[:most] == first for each in documents[1:]]).all(0)
    length = most if bool(same.all()) else int(same.to(torch.uint8).argmin())
    return length if length >= WORTHWHILE else 0


def lay_out(documents: Sequence[Document], *, shared: bool = True) -> Pass:
    """Put documents end to end. shared: compute a common beginning once; off where dropout must differ by row."""
    documents = [without_end(each) for each in documents]
    prefix = common_beginning(documents) if shared else 0
    layout = Layout(prefix, tuple(len(each) - prefix for each in documents))
    head = documents[0].ids[:prefix]
    places, targets, counts = [], [], []
    for document, (begin, _) in zip(documents, layout.spans(), strict=True):
        following = document.labels[prefix + 1 :]
        learned = (following != IGNORED).nonzero()[:, 0]
        places.append(learned + begin)
        targets.append(following[learned])
        counts.append(len(learned))
    steps = [torch.arange(prefix), *(torch.arange(prefix, len(each)) for each in documents)]
    return Pass(
        ids=torch.cat([head, *(each.ids[prefix:] for each in documents)])[None],
        positions=torch.cat(steps)[None],
        places=torch.cat(places),
        targets=torch.cat(targets),
        layout=layout,
        counts=tuple(counts),
    )


def grouped(documents: Sequence[Document], most: int) -> list[list[Document]]:
    """Documents in groups of at most `most` tokens each, of which none is empty, in their order."""
    groups: list[list[Document]] = []
    room = 0
    for document in documents:
        if len(document) > room or not groups:
            groups.append([])
            room = most
        groups[-1].append(document)
        room -= len(document)
    return groups
