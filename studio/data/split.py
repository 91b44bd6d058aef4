"""Hold some rows out for validation: pure, and the same for the same rows, share and seed.

Rows that say the same, and rows of one group, stay on one side, and so do all that are tied by either. Not here: which
rows there are (studio.data.selection).
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Hashable, Iterator, Sequence
from hashlib import blake2b

from studio.data.example import Example, Message
from studio.errors import DataError


def key(example: Example) -> str:
    """Equal for examples that say the same. Short, so that a list of keys stays small."""
    if example.kind == "messages" and example.text is None and not example.tools:
        parts = _said(example.messages)
    else:
        sides = (example.messages, example.chosen, example.rejected)
        told = (example.kind, example.text, example.label, example.tools, *map(len, sides))
        # a text and a number, or a text and nothing, are never the same
        parts = [f"{type(each).__name__} {each}" for each in told]
        for turns in sides:
            parts += _said(turns)
    together = "".join([f"{len(part)}:{part}" for part in parts])
    return blake2b(together.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def split(
    keys: Sequence[Hashable], share: float, seed: int, groups: Sequence[Hashable | None] | None = None
) -> tuple[list[int], list[int]]:
    """(training indices, held-out indices), both ascending. Rows with equal keys land on the same side.

    share: of the rows that is held out, up to 0.5; above 0, at least one row lands on each side, and never more than
    the share unless the smallest set of rows that belong together is larger. groups: one a row; rows of equal groups
    land on the same side too, and None is in no group.
    Raises: DataError: there is a share, but fewer than two rows that may be parted.
    """
    everything = range(len(keys))
    if share == 0:
        return list(everything), []
    together = _together(keys, groups)
    if len(together) < 2:
        what = "that differ are needed" if groups is None else "of different content and group are needed"
        raise DataError(
            f"No rows can be held out of {len(keys)}: at least two {what}. Set data.validation_share to 0, or add rows."
        )
    order = list(range(len(together)))
    random.Random(seed).shuffle(order)
    sizes = [len(together[place]) for place in order]
    apart = bytearray(len(keys))
    for place in _taken(sizes, max(1, round(len(keys) * share))):
        for index in together[order[place]]:
            apart[index] = 1
    return [index for index in everything if not apart[index]], [index for index in everything if apart[index]]


def _said(messages: Sequence[Message]) -> list[str]:
    parts = []
    for message in messages:
        parts += (message.role, message.content)
        # a role is never a number nor "thought", so neither can be taken for a turn. What ids calls have, and whether
        # an answer is learned, changes nothing in what is said
        if message.thought:
            parts += ("thought", message.thought)
        if message.tool_calls:
            parts.append(str(len(message.tool_calls)))
            for call in message.tool_calls:
                parts += (call.name, call.arguments)
    return parts


# --- rows that belong together


def _together(keys: Sequence[Hashable], groups: Sequence[Hashable | None] | None) -> list[Sequence[int]]:
    """Sets of rows that share a key or a group, directly or over other rows, in the order of their first rows."""
    tied = _numbered(keys)
    if groups is not None:
        tied = _united(tied, groups)
    found: list[Sequence[int]] = []
    at: dict[int, int] = {}
    for index, number in enumerate(tied):
        place = at.setdefault(number, len(found))
        if place == len(found):
            found.append((index,))  # most rows stand alone, and a tuple of one is small
        elif isinstance(members := found[place], array):
            members.append(index)
        else:
            found[place] = array("l", (*members, index))
    return found


def _numbered(values: Sequence[Hashable]) -> array[int]:
    numbers: dict[Hashable, int] = {}
    return array("l", (numbers.setdefault(each, len(numbers)) for each in values))


def _united(tied: array[int], groups: Sequence[Hashable | None]) -> array[int]:
    """One number per row, equal where rows are tied by their number, by their group, or over other rows."""
    parent = array("l", range(len(tied)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = number = parent[parent[number]]
        return number

    first: dict[Hashable, int] = {}
    for number, group in zip(tied, groups, strict=True):
        if group is not None:
            one, other = root(number), root(first.setdefault(group, number))
            parent[one] = other
    return array("l", map(root, tied))


# --- which of them are held out


def _taken(sizes: list[int], wanted: int) -> list[int]:
    """Places of sizes that add up to `wanted`, or to as much of it as they can; the smallest one if none fits.

    In order as long as they fit: with rows that stand alone, that is all. Only where that leaves a gap is it searched
    for the sum that comes closest.
    """
    taken, total = [], 0
    for place, size in enumerate(sizes):
        if total + size <= wanted:
            taken.append(place)
            total += size
            if total == wanted:
                return taken
    if not taken:
        return [min(range(len(sizes)), key=sizes.__getitem__)]
    closest = _closest(sizes, wanted)
    return taken if sum(closest) == total else list(_first_of(sizes, closest))


def _closest(sizes: list[int], wanted: int) -> list[int]:
    """Some of the sizes whose sum is the largest that is not above `wanted`."""
    counts: dict[int, int] = {}
    for size in sizes:
        if size <= wanted:
            counts[size] = counts.get(size, 0) + 1
    within = (1 << wanted + 1) - 1
    reachable = [1]  # bit n: the sum n can be made of the parts so far
    parts: list[tuple[int, int]] = []
    for size, times in _parts(counts):
        parts.append((size, times))
        reachable.append((reachable[-1] | reachable[-1] << size * times) & within)
        if reachable[-1] >> wanted:
            break
    rest = reachable[-1].bit_length() - 1
    chosen: list[int] = []
    for (size, times), before in zip(reversed(parts), reversed(reachable[:-1]), strict=True):
        if not before >> rest & 1:
            chosen += [size] * times
            rest -= size * times
    return chosen


def _parts(counts: dict[int, int]) -> Iterator[tuple[int, int]]:
    """(size, how many of it at once): powers of two and a rest, from which any number up to the count can be made."""
    for size, count in sorted(counts.items(), reverse=True):
        times = 1
        while count:
            yield size, min(times, count)
            count -= min(times, count)
            times *= 2


def _first_of(sizes: list[int], chosen: list[int]) -> Iterator[int]:
    """The first places at which the chosen sizes stand."""
    left: dict[int, int] = {}
    for size in chosen:
        left[size] = left.get(size, 0) + 1
    for place, size in enumerate(sizes):
        if left.get(size, 0):
            left[size] -= 1
            yield place
