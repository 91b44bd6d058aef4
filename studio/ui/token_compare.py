"""What two templates make of the same row, in one line: whether text, tokens and what is learned are equal, else where
they first differ. Not here: how either looks (studio.ui.token_view)."""

from __future__ import annotations

import html
from collections.abc import Sequence

from studio.templates import Encoded
from studio.ui.preview import Written
from studio.ui.texts import table

EXCERPT = 16
"""Characters that are shown of each text where they differ."""


def compared(one: Written, other: Written, language: str) -> str:
    """The line as markup."""
    words = table(language)
    differ = {"text": _text, "tokens": _tokens, "learned": _learned}
    found = {kind: look(one.kept, other.kept) for kind, look in differ.items()}
    alike = not any(found.values())
    told = words["template.same"] if alike else " ".join(
        words[f"template.differs.{kind}"].format(**values) if values else words[f"template.equal.{kind}"]
        for kind, values in found.items()
    )  # fmt: skip
    return f"<p class='compared' role='status' data-equal='{int(alike)}'>{html.escape(told)}</p>"


def _text(one: Encoded, other: Encoded) -> dict[str, str]:
    place = first_difference(one.text, other.text)
    if place is None:
        return {}
    return {"place": f"{place + 1:,}", "one": _excerpt(one.text, place), "other": _excerpt(other.text, place)}


def _tokens(one: Encoded, other: Encoded) -> dict[str, str]:
    place = first_difference(one.input_ids, other.input_ids)
    if place is None:
        return {}
    return {"place": f"{place + 1:,}", "one": _at(one.input_ids, place), "other": _at(other.input_ids, place)}


def _learned(one: Encoded, other: Encoded) -> dict[str, str]:
    """By place where the tokens are the same; else the learned ones by themselves, one after the other."""
    if one.input_ids == other.input_ids:
        place = first_difference(one.supervised, other.supervised)
    else:
        place = first_difference(_learned_ids(one), _learned_ids(other))
    return {} if place is None else {"place": f"{place + 1:,}"}


def _learned_ids(found: Encoded) -> list[int]:
    return [number for begin, end in found.learned for number in found.input_ids[begin:end]]


def first_difference(one: Sequence[object], other: Sequence[object]) -> int | None:
    """The first place where two sequences differ, counted from 0; None where they are equal."""
    if one == other:
        return None
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))


def _excerpt(text: str, place: int) -> str:
    return text[place : place + EXCERPT].replace("\n", "↵").replace("\t", "→") or "∎"


def _at(ids: Sequence[int], place: int) -> str:
    return str(ids[place]) if place < len(ids) else "∎"
