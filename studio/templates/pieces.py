"""A text cut where no token reaches across, its pieces tokenised many at once, and those that come again remembered.

For tokenizers that read a piece the same wherever it stands: byte-level ones, which most families have. What a template
writes around each conversation is then tokenised once. Not here: where a text is to be cut (studio.templates.encoding),
and tokenizers that put something before a text, such as those made by sentencepiece (studio.templates.tokenizer).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, overload

from tokenizers import Tokenizer
from tokenizers.models import BPE

from studio.templates.quoting import Span

_LONGEST, _MOST = 256, 8192
"""Characters of a piece that is remembered, and how many pieces are: those of the template come first of all."""


class Cut(NamedTuple):
    """A tokenised text. at: for each place where it was to be cut, the number of tokens before it."""

    ids: list[int]
    at: dict[int, int]
    places: Places


class Pieces:
    """Tokenises texts by their pieces."""

    def __init__(self, backend: Tokenizer, special: re.Pattern[str], specials: Sequence[str]):
        """special: finds a special token. specials: all of them."""
        self._backend, self._special = backend, special
        self._known: dict[str, list[int]] = {each: [backend.token_to_id(each)] for each in specials}

    def encode(self, texts: Sequence[tuple[str, Sequence[int]]]) -> list[Cut]:
        """texts: each with the places where it is cut, ascending, besides those around special tokens."""
        split = [(text, cuts, self._bounds(text, cuts)) for text, cuts in texts]
        known = dict.fromkeys(text[begin:end] for text, _, bounds in split for begin, end in pairwise(bounds))
        asked = [each for each in known if each not in self._known]
        # without the places of tokens, which are hardly ever asked for, it is a sixth quicker
        told = self._backend.encode_batch_fast(asked, add_special_tokens=False) if asked else []
        found = {piece: encoding.ids for piece, encoding in zip(asked, told, strict=True)}
        for piece, ids in found.items():
            if len(piece) <= _LONGEST and len(self._known) < _MOST:
                self._known[piece] = ids
        return [self._joined(text, cuts, bounds, found) for text, cuts, bounds in split]

    def _bounds(self, text: str, cuts: Sequence[int]) -> list[int]:
        bounds = {0, len(text), *cuts}
        for match in self._special.finditer(text):
            bounds.update(match.span())
        return sorted(bounds)

    def _joined(self, text: str, cuts: Sequence[int], bounds: Sequence[int], found: Mapping[str, list[int]]) -> Cut:
        ids: list[int] = []
        wanted = frozenset(cuts)
        at = {0: 0}
        for begin, end in pairwise(bounds):
            piece = text[begin:end]
            ids += self._known.get(piece) or found[piece]
            if end in wanted:
                at[end] = len(ids)
        return Cut(ids, at, Places(len(ids), lambda: list(self._places(text, bounds))))

    def _places(self, text: str, bounds: Sequence[int]) -> Iterator[Span]:
        for begin, end in pairwise(bounds):
            for start, stop in self._backend.encode(text[begin:end], add_special_tokens=False).offsets:
                yield begin + start, begin + stop


class Places(Sequence[Span]):
    """The place of each token, [start, end) in characters: a list that is only made when it is looked into."""

    def __init__(self, length: int, make: Callable[[], list[Span]]):
        self._length, self._make = length, make
        self._made: list[Span] | None = None

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Span: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Span]: ...
    def __getitem__(self, index: int | slice) -> Span | Sequence[Span]:
        if self._made is None and isinstance(index, slice):
            return Places(len(range(self._length)[index]), lambda: self._list()[index])
        return self._list()[index]

    def __iter__(self) -> Iterator[Span]:
        return iter(self._list())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._list() == list(other)

    __hash__ = None  # type: ignore[assignment]

    def _list(self) -> list[Span]:
        if self._made is None:
            self._made = self._make()
        return self._made


def reads_pieces_alike(backend: Tokenizer, specials: Sequence[str]) -> bool:
    """Whether a piece between two cuts has the same tokens as it would have alone, and specials always are tokens."""
    added = {each.content: each for each in backend.get_added_tokens_decoder().values()}
    return (
        all(each in added for each in specials)
        and not any(each.lstrip or each.rstrip or each.single_word for each in added.values())
        and isinstance(backend.model, BPE)
        and _composes(_settings(backend.normalizer))
        and _byte_level(_settings(backend.pre_tokenizer))
    )


def _settings(step: Any) -> Any:
    return None if step is None else json.loads(step.__getstate__())


def _composes(step: Any) -> bool:
    """Whether a normalizer, if there is one, does no more than to compose characters."""
    match step:
        case None | {"type": "NFC"}:
            return True
        case {"type": "Sequence", "normalizers": steps}:
            return all(map(_composes, steps))
        case _:
            return False


def _byte_level(step: Any) -> bool:
    """Whether a pre-tokenizer, down to its last step, only splits, and turns bytes into letters."""
    match step:
        case {"type": "Sequence", "pretokenizers": steps}:
            return all(_only_splits(each) for each in steps[:-1]) and _byte_level(steps[-1])
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return True
        case _:
            return False


def _only_splits(step: Mapping[str, Any]) -> bool:
    return step["type"] in ("Split", "Digits", "Punctuation")
