"""Prompts alone, for methods in which the model answers while it learns: text, or a list of turns.

Not here: what an answer is worth; that is asked of a reward (the spec of the run).
"""

from collections.abc import Mapping, Sequence

from studio.data.calls import tools
from studio.data.example import Confidence, Example, Format, Values
from studio.data.fields import usual_columns
from studio.data.turns import OPENAI, looks_like_turns, prompt, tags_of, words_of

COLUMNS = {"prompt": ("prompt",), "system": ("system",), "tools": ("tools",)}
BESIDE = {"prompt", "system", "tools", "id", "prompt_id", "source", "meta", "metadata"}
"""Columns that can stand beside a prompt and answer nothing."""


def detect(rows: Sequence[Values]) -> Confidence | None:
    asked = [row.get("prompt") for row in rows]
    count = sum(isinstance(each, str) or looks_like_turns(each, words_of({}, each)) for each in asked)
    if not count:
        return None
    alone = all(set(row) <= BESIDE for row in rows)
    reason = f"{count} of {len(rows)} rows have a prompt{'' if alone else ', beside other columns,'} and no answer."
    return Confidence(
        (1.0 if alone else 0.5) * count / len(rows), reason, usual_columns(rows, COLUMNS), tags_of(rows, ["prompt"])
    )


def convert(values: Values, columns: Mapping[str, str], tags: Mapping[str, str]) -> Example:
    return Example(prompt(values, columns, tags), kind="prompt", tools=tools(values, columns))


FORMAT = Format("prompt", COLUMNS, ("prompt",), detect, convert, OPENAI)
