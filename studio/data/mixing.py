"""Mix several datasets by weight: which rows of each, in which order. Pure, and the same for the same numbers.

Not here: what the rows are, and the order in which a trainer then draws them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from fractions import Fraction

import numpy as np


def mixed(sizes: Sequence[int], weights: Sequence[float], *, repeat: bool, seed: int | None) -> np.ndarray:
    """Rows of several sets in one order, as numbers that count through all sets: set 1 begins where set 0 ends.

    Args: sizes: rows of each set. weights: relative, above 0. repeat: off, no row comes twice and the first set that
        is used up ends the mix; on, sets begin again until each row of the one that lasts longest came once. seed:
        draws the rows of a set at random; None takes them from its start on.
    Returns: int64. Each set's share is met within one row, and the sets are spread evenly over the order. A set
        without rows leaves nothing to mix, unless sets repeat: then the others are mixed without it.
    """
    counts = amounts(sizes, weights, repeat=repeat)
    starts = np.cumsum([0, *sizes[:-1]])
    rows = [start + _drawn(size, count, seed) for start, size, count in zip(starts, sizes, counts, strict=True)]
    # the middle of each row's part of the way, so that sets of any two sizes alternate as evenly as they can
    places = [(np.arange(count) + 0.5) / max(count, 1) for count in counts]
    return np.concatenate(rows)[np.argsort(np.concatenate(places), kind="stable")]


def amounts(sizes: Sequence[int], weights: Sequence[float], *, repeat: bool) -> list[int]:
    """How many rows of each set are in the mix."""
    there = [place for place, size in enumerate(sizes) if size]
    if not there or (len(there) < len(sizes) and not repeat):
        return [0] * len(sizes)
    exact = [Fraction(weights[place]) for place in there]
    whole = sum(exact)
    shares = [weight / whole for weight in exact]
    lasting = [sizes[place] / share for place, share in zip(there, shares, strict=True)]
    end = max(lasting) if repeat else min(lasting)
    total = math.ceil(end) if repeat else math.floor(end)
    found = [0] * len(sizes)
    for place, count in zip(there, _apportioned(total, shares, lasting.index(end), repeat), strict=True):
        found[place] = count
    return found


def _apportioned(total: int, shares: Sequence[Fraction], last: int, repeat: bool) -> list[int]:
    """`total` rows by share, each within one row. last: the set that ends the mix is used up to its last row.

    Without repeating it is the first to be rounded up, so that it is; with repeating the last, so that it does not
    begin again.
    """
    counts = [math.floor(total * share) for share in shares]
    rests = [total * share - count for share, count in zip(shares, counts, strict=True)]
    order = sorted(range(len(shares)), key=lambda place: ((place == last) == repeat, -rests[place], place))
    for place in [place for place in order if rests[place]][: total - sum(counts)]:
        counts[place] += 1
    return counts


def _drawn(size: int, count: int, seed: int | None) -> np.ndarray:
    """`count` rows of a set, going round it as often as is needed; each round in an order of its own."""
    rounds, numbers, order = [], list(range(size)), random.Random(seed)
    for begin in range(0, count, size or 1):
        if seed is not None:
            order.shuffle(numbers)
        rounds.append(np.array(numbers[: count - begin], dtype=np.int64))
    return np.concatenate(rounds) if rounds else np.zeros(0, dtype=np.int64)
