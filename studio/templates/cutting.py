"""What goes where a conversation has more tokens than are kept: the row, its oldest turns, its answer, its sources.

The end of a question and the header of its answer are never cut before the answer itself: a row whose answer is gone
teaches nothing, and is left out rather than trained on as a question without an end. Not here: which tokens are learned
(studio.templates.encoding).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING, Literal

from studio.templates.quoting import Span

if TYPE_CHECKING:
    from studio.templates.encoding import Encoded

Truncation = Literal["cut_answer", "drop_turns", "cut_source", "drop_row"]
Shortened = Literal["", "answer", "turns", "source", "row"]
CUTS: tuple[Shortened, ...] = ("answer", "turns", "source", "row")
LEAST_SOURCE = 32
"""Tokens that are left of each text that is cut in its middle."""


def fitted(
    whole: Encoded,
    max_length: int | None,
    truncation: Truncation,
    *,
    sources: Callable[[], Sequence[Span]] = list,
    shorter: Callable[[], Iterable[Encoded]] = list,
    keep_end: bool = False,
) -> Encoded:
    """At most max_length tokens of an encoded example.

    sources: where texts stand that may lose their middle, in characters. shorter: the same without its oldest turns,
    one after the other. keep_end: whatever follows on the last learned token is not worth its place.
    """
    if max_length is None or len(whole.input_ids) <= max_length:
        return whole
    match truncation:
        case "drop_row":
            return replace(whole, input_ids=[], offsets=[], learned=[], cut="row")
        case "drop_turns":
            for each in shorter():
                whole = replace(each, total=whole.total, answered=whole.answered, cut="turns")
                if len(whole.input_ids) <= max_length:
                    return whole
        case "cut_source":
            whole = _without_middles(whole, sources(), len(whole.input_ids) - max_length)
            if len(whole.input_ids) <= max_length:
                return whole
    return _first(whole, max_length, keep_end)


def _first(whole: Encoded, max_length: int, keep_end: bool) -> Encoded:
    """The first tokens: the end of an answer goes, and its end token with it."""
    learned = [(begin, min(end, max_length)) for begin, end in whole.learned if begin < max_length]
    # half a question after the last answer teaches nothing
    most = learned[-1][1] if keep_end and learned else max_length
    return replace(whole, input_ids=whole.input_ids[:most], offsets=whole.offsets[:most], learned=learned, cut="answer")


def _without_middles(whole: Encoded, sources: Sequence[Span], excess: int) -> Encoded:
    """Without so many tokens out of the middles of the longest sources, as far as these suffice."""
    ranges = sorted(_inside(whole.offsets, span) for span in sources)
    most = _level([end - begin for begin, end in ranges], excess)
    keep: list[Span] = []
    place = 0
    for begin, end in ranges:
        first, last = begin + (most + 1) // 2, end - most // 2
        # a character of several tokens goes or stays whole; rather too much goes than the end of an answer
        while begin < first < last and _share(whole.offsets, first):
            first -= 1
        while first < last < end and _share(whole.offsets, last):
            last += 1
        if first < last:
            keep.append((place, first))
            place = last
    keep.append((place, len(whole.input_ids)))
    return replace(
        whole,
        input_ids=[number for begin, end in keep for number in whole.input_ids[begin:end]],
        offsets=[span for begin, end in keep for span in whole.offsets[begin:end]],
        learned=list(_moved(whole.learned, keep)),
        cut="source",
    )


def _share(offsets: Sequence[Span], place: int) -> bool:
    """Whether a token and the one before it are parts of one character."""
    return offsets[place][0] < offsets[place - 1][1]


def _level(lengths: Sequence[int], excess: int) -> int:
    """The length to which the longest are cut, so that together they lose the excess; at least LEAST_SOURCE."""
    wanted = sum(lengths) - excess
    rest = len(lengths)
    for length in sorted(lengths):
        if rest * length >= wanted:
            break
        wanted -= length
        rest -= 1
    return max(LEAST_SOURCE, wanted // rest if rest else LEAST_SOURCE)


def _moved(learned: Sequence[Span], keep: Sequence[Span]) -> Iterable[Span]:
    """The learned ranges, counted in what is kept."""
    place = 0
    for begin, end in keep:
        for first, last in learned:
            if (low := max(first, begin)) < (high := min(last, end)):
                yield place + low - begin, place + high - begin
        place += end - begin


def _inside(offsets: Sequence[Span], span: Span) -> Span:
    """The tokens that lie in a span whole: one at its edge may hold a character of the template."""
    first = bisect_left(offsets, span[0], key=itemgetter(0))
    last = bisect_left(offsets, span[1], lo=first, key=itemgetter(0))
    while last > first and offsets[last - 1][1] > span[1]:
        last -= 1
    return first, last
