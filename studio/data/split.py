"""Hold some rows out for validation: pure, and the same for the same rows, share and seed.

Not here: which rows there are (studio.data.registry).
"""

import hashlib
import random
from collections.abc import Hashable, Sequence

from studio.data.example import Example
from studio.errors import DataError


def key(example: Example) -> str:
    """Equal for examples that say the same. Short, so that a list of keys stays small."""
    parts = [example.text] if example.text is not None else [t for m in example.messages for t in (m.role, m.content)]
    digest = hashlib.blake2b(digest_size=16)
    for part in (str(len(example.messages)), *parts):
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()


def split(keys: Sequence[Hashable], share: float, seed: int) -> tuple[list[int], list[int]]:
    """(training indices, held-out indices), both ascending. Rows with equal keys land on the same side.

    share: of the rows that is held out, up to 0.5; above 0, at least one row lands on each side.
    Raises: DataError: there is a share, but fewer than two different rows.
    """
    everything = list(range(len(keys)))
    if share == 0:
        return everything, []
    groups: dict[Hashable, list[int]] = {}
    for index, each in enumerate(keys):
        groups.setdefault(each, []).append(index)
    if len(groups) < 2:
        raise DataError(
            f"No rows can be held out of {len(keys)}: at least two different ones are needed. "
            "Set data.validation_share to 0, or add rows."
        )
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    held = _take(order, max(1, round(len(keys) * share)))
    apart = set(held)
    return [index for index in everything if index not in apart], sorted(held)


def _take(groups: list[list[int]], wanted: int) -> list[int]:
    """Whole groups, in order, as long as they fit into `wanted` rows; the smallest group if none does."""
    taken: list[int] = []
    for group in groups:
        if len(taken) + len(group) <= wanted:
            taken += group
    return taken or min(groups, key=len)
