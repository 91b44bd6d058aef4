"""Texts that are nearly the same: MinHash signatures find candidates, and the true similarity decides.

Similarity is Jaccard's, over pieces of three words, or of five characters where words are not spaced. Case and white
space do not count. Pieces and signatures lie on disk while they are compared, so memory does not grow with the length
of the texts. Not here: texts that are equal (content), and which text of a row is compared (story).
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np

from studio.data.audit.pace import Pace

WORDS, CHARACTERS = 3, 5
"""Words, or characters, in one piece."""
PERMUTATIONS = 128
RECALL = 0.98
"""Share of the pairs just at the wanted similarity that become candidates. More similar ones are found more surely."""
MOST_IN_BUCKET, MOST_COMPARED = 64, 16
"""Bounds for texts that share a pattern: remembered in one bucket, and compared with one text."""

# Thai, Lao, Burmese, Khmer, kana and Han: written without spaces between words
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_FACTORS = np.array([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1], dtype=np.uint32)
_BATCH = 8192


class Found(NamedTuple):
    """Pairs of positions, (n, 2), and how similar each is, from 0 to 1."""

    pairs: np.ndarray
    similarity: np.ndarray


class Sketches:
    """The pieces of texts, and keys that near texts are likely to share, kept in two files of a folder."""

    def __init__(self, folder: Path, name: str, similarity: float):
        from datasketch import MinHash  # here, because it brings scipy, and only an audit needs it

        self._similarity = similarity
        self._bands, self._rows = _banding(similarity)
        self._minhash = MinHash(num_perm=PERMUTATIONS, hashfunc=int)
        self._mix = np.random.RandomState(7).randint(0, 2**63, self._rows, dtype=np.uint64) * np.uint64(2) + np.uint64(
            1
        )
        self._pieces = (folder / f"{name}.pieces").open("wb+")
        self._keys = (folder / f"{name}.keys").open("wb+")
        self._ends, self._at = array("Q"), array("Q")

    def __len__(self) -> int:
        return len(self._at)

    def add(self, position: int, text: str) -> None:
        """A text without a single word is left out."""
        found = pieces(text)
        if not len(found):
            return
        self._pieces.write(found.tobytes())
        self._keys.write(self._signature(found).tobytes())
        self._ends.append(len(found) + (self._ends[-1] if self._ends else 0))
        self._at.append(position)

    def within(self, pace: Pace) -> Found:
        """Each text that is near an earlier one, with the earliest such one that is itself near no other."""
        return self._found(pace, references=None)

    def across(self, references: int, pace: Pace) -> Found:
        """Each text after the first `references` ones that is near one of those."""
        return self._found(pace, references=references)

    def close(self) -> None:
        self._pieces.close()
        self._keys.close()

    def _signature(self, found: np.ndarray) -> np.ndarray:
        """One key per band: texts with an equal key in some band are candidates. Shape: (bands,)."""
        self._minhash.clear()
        for start in range(0, len(found), _BATCH):
            self._minhash.update_batch(found[start : start + _BATCH].tolist())
        values = self._minhash.hashvalues[: self._bands * self._rows].astype(np.uint64)
        return (values.reshape(self._bands, self._rows) * self._mix).sum(axis=1, dtype=np.uint64)

    def _found(self, pace: Pace, references: int | None) -> Found:
        count = len(self._at)
        pairs, similarities = [], []
        if count > 1:
            self._pieces.flush()
            self._keys.flush()
            held = np.asarray(np.memmap(self._pieces, dtype=np.uint32, mode="r"))
            buckets = self._buckets(count, pace)
            known: dict[int, list[int]] = {}
            maybe = np.flatnonzero((buckets >= 0).any(axis=1)).tolist()
            for text in pace.through(maybe, "compare", len(maybe)):
                own = [each for each in buckets[text].tolist() if each >= 0]
                if references is None or text >= references:
                    match = self._match(held, text, own, known)
                    if match is not None:
                        pairs.append((self._at[text], self._at[match[0]]))
                        similarities.append(match[1])
                        continue
                if references is None or text < references:
                    for bucket in own:
                        members = known.setdefault(bucket, [])
                        if len(members) < MOST_IN_BUCKET:
                            members.append(text)
        return Found(np.array(pairs, dtype=np.int64).reshape(-1, 2), np.array(similarities, dtype=np.float32))

    def _match(
        self, held: np.ndarray, text: int, own: list[int], known: dict[int, list[int]]
    ) -> tuple[int, float] | None:
        shared = Counter(member for bucket in own for member in known.get(bucket, ()))
        mine = self._of(held, text)
        near = [
            (member, similarity)
            for member, _ in shared.most_common(MOST_COMPARED)
            if (similarity := jaccard(mine, self._of(held, member))) >= self._similarity
        ]
        return min(near) if near else None

    def _of(self, held: np.ndarray, text: int) -> np.ndarray:
        return held[self._ends[text - 1] if text else 0 : self._ends[text]]

    def _buckets(self, count: int, pace: Pace) -> np.ndarray:
        """A number per text and band that candidates share, or -1 where nothing shares it. Shape: (texts, bands)."""
        keys = np.memmap(self._keys, dtype=np.uint64, mode="r", shape=(count, self._bands))
        buckets = np.full((count, self._bands), -1, dtype=np.int32)
        used = 0
        for band in range(self._bands):
            pace.tell("compare", count * band // self._bands, count)
            _, inverse, counts = np.unique(keys[:, band], return_inverse=True, return_counts=True)
            numbers = np.full(len(counts), -1, dtype=np.int32)
            several = counts > 1
            numbers[several] = np.arange(used, used + several.sum(), dtype=np.int32)
            used += int(several.sum())
            buckets[:, band] = numbers[inverse]
        return buckets


def pieces(text: str) -> np.ndarray:
    """The different pieces of a text, as sorted hashes of 32 bits. A text shorter than a piece is one."""
    text = text.casefold()
    words = text.split()
    if _is_unspaced(text):
        units = np.frombuffer("".join(words).encode("utf-32-le", "replace"), dtype=np.uint32)
        size = CHARACTERS
    else:
        coded = " ".join(words).encode("utf-8", "replace").split(b" ")
        units = np.array([crc32(word) for word in coded if word], dtype=np.uint32)
        size = WORDS
    size = min(size, len(units))
    if not size:
        return units
    last = len(units) - size + 1
    hashed = units[:last] * _FACTORS[0]
    for place in range(1, size):
        # rotated between, because a sum alone would not tell the order of the units
        hashed = (hashed << np.uint32(5) | hashed >> np.uint32(27)) ^ units[place : place + last] * _FACTORS[place]
    hashed.sort()
    new = np.empty(last, dtype=bool)
    new[0], new[1:] = True, hashed[1:] != hashed[:-1]
    return hashed[new]


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Common pieces as a share of all pieces of two texts."""
    if not len(one) or not len(other):
        return 0.0
    places = np.minimum(np.searchsorted(other, one), len(other) - 1)
    common = int(np.count_nonzero(other[places] == one))
    return common / (len(one) + len(other) - common)


def _is_unspaced(text: str) -> bool:
    if text.isascii():
        return False
    return 3 * len(_UNSPACED.findall(text)) > len(text)


def _banding(similarity: float) -> tuple[int, int]:
    """(bands, hashes in each): the longest bands that still find what is just similar enough."""
    for rows in range(16, 0, -1):
        bands = PERMUTATIONS // rows
        if 1 - (1 - similarity**rows) ** bands >= RECALL:
            return bands, rows
    return PERMUTATIONS, 1
