"""Preference rows: a prompt and two answers to it, the chosen and the rejected one.

The prompt is text, an instruction with its input, or turns; or it is not written apart: then chosen and rejected are
whole conversations, and what they have in common at their beginning is the prompt. An answer is text, one turn, or a
list of turns. Not here: answers with a thumb up or down, one by one (kto).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from studio.data.calls import tools
from studio.data.example import Confidence, Example, Format, Message, RowFault, Values
from studio.data.fields import at, lack, usual_columns
from studio.data.turns import OPENAI, checked_prompt, prompt, said, tags_of, with_system, words_of

COLUMNS = {
    "prompt": ("prompt", "instruction", "question", "query"),
    "query": ("input",),
    "messages": ("conversations", "messages", "conversation"),
    "chosen": ("chosen", "chosen_response"),
    "rejected": ("rejected", "rejected_response"),
    "system": ("system",),
    "history": ("history",),
    "tools": ("tools",),
}
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")


def detect(rows: Sequence[Values]) -> Confidence | None:
    found = usual_columns(rows, COLUMNS)
    if "chosen" not in found or "rejected" not in found:
        return None
    sides = found["chosen"], found["rejected"]
    fits = [row for row in rows if all(isinstance(row.get(side), str | list | dict) for side in sides)]
    if not fits:
        return None
    left_out = _not_the_prompt(found, fits[0].get(sides[0]))
    columns = {part: name for part, name in found.items() if part not in left_out}
    asked = [columns[part] for part in ("prompt", "messages") if part in columns]
    where = f" to {asked[0]}" if asked else ", which begin with the prompt"
    reason = f"{len(fits)} of {len(rows)} rows have the answers {sides[0]} and {sides[1]}{where}."
    return Confidence(len(fits) / len(rows), reason, columns, tags_of(rows, (*asked, *sides)))


def convert(values: Values, columns: Mapping[str, str], tags: Mapping[str, str]) -> Example:
    names = columns.get("chosen", "chosen"), columns.get("rejected", "rejected")
    chosen, rejected = (_side(values, name, tags) for name in names)
    if chosen[0].role != "assistant" or rejected[0].role != "assistant":
        asked, chosen, rejected = _apart(chosen, rejected, names)
        asked = checked_prompt(with_system(asked, values, columns), names[0])
    else:
        asked = prompt(values, columns, tags)
    if chosen == rejected:
        raise RowFault(names[1], f"is the same as {names[0]}. A preference needs two different answers.")
    for name, side in zip(names, (chosen, rejected), strict=True):
        if side[-1].role != "assistant":
            raise RowFault(name, f"ends with a turn of the {side[-1].role}. An answer ends with the assistant's turn.")
    return Example(asked, kind="preference", chosen=chosen, rejected=rejected, tools=tools(values, columns))


def _side(values: Values, column: str, tags: Mapping[str, str]) -> tuple[Message, ...]:
    value = at(values, column)
    if value is None:
        raise RowFault(column, lack(values, column, "answer"))
    if isinstance(value, str) and value.startswith("\n\nHuman:"):
        value = _spoken(value)
    side = said(value, column, tags, by="assistant", part="answer")
    if not side:
        raise RowFault(column, "is an empty list. An answer needs a turn.")
    return side


def _apart(
    chosen: tuple[Message, ...], rejected: tuple[Message, ...], names: tuple[str, str]
) -> tuple[tuple[Message, ...], tuple[Message, ...], tuple[Message, ...]]:
    """The common beginning of two conversations, and what follows it in each."""
    same = next((i for i, pair in enumerate(zip(chosen, rejected, strict=False)) if pair[0] != pair[1]), None)
    if same is None:
        if len(chosen) == len(rejected):
            raise RowFault(names[1], f"is the same as {names[0]}. A preference needs two different answers.")
        shorter = names[len(chosen) > len(rejected)]
        raise RowFault(shorter, "says nothing after what both conversations have in common.")
    for name, side in zip(names, (chosen, rejected), strict=True):
        if side[same].role != "assistant":
            reason = f"is where the two conversations part, but is a turn of the {side[same].role}, not an answer."
            raise RowFault(f"{name}[{same}]", reason)
    return chosen[:same], chosen[same:], rejected[same:]


def _spoken(text: str) -> list[dict[str, str]]:
    """The turns of a dialogue that is written as one text with `Human:` and `Assistant:`, as HH-RLHF has it."""
    pieces = _SPEAKER.split(text)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[who], "content": text.strip()} for who, text in zip(pieces[::2], pieces[1::2], strict=True)]


def _not_the_prompt(found: Mapping[str, str], side: Any) -> set[str]:
    """Parts that have a column but do not play: an input without instruction, a second prompt, a whole conversation."""
    if _is_whole(side):
        # such sets often keep the chosen conversation a second time under `messages`
        return {"prompt", "query", "messages", "history"}
    left_out = {"messages"} if "prompt" in found else set()
    return left_out | ({"query"} if found.get("prompt") != "instruction" else set())


def _is_whole(side: Any) -> bool:
    if isinstance(side, str):
        return side.startswith("\n\nHuman:")
    if not isinstance(side, list) or not side or not isinstance(side[0], dict):
        return False
    usual = words_of({}, side)
    return usual.roles.get(str(side[0].get(usual.role_key))) != "assistant"


FORMAT = Format("preference", COLUMNS, ("chosen", "rejected"), detect, convert, OPENAI)
