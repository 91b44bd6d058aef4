"""Prompt and completion rows: one question and its answer in two columns of text; optionally a system text.

Not here: rows with an instruction and an input (alpaca).
"""

from collections.abc import Mapping, Sequence

from studio.data.example import Confidence, Example, Format, Message, Values
from studio.data.fields import needed_text, optional_text

COLUMNS = {
    "prompt": ("prompt", "question", "query"),
    "response": ("completion", "answer", "response"),
    "system": ("system",),
}


def detect(rows: Sequence[Values]) -> Confidence | None:
    best: Confidence | None = None
    for prompt in COLUMNS["prompt"]:
        for response in COLUMNS["response"]:
            count = sum(isinstance(row.get(prompt), str) and response in row for row in rows)
            if count and (best is None or count / len(rows) > best.value):
                reason = f"{count} of {len(rows)} rows have {prompt} and {response}."
                best = Confidence(count / len(rows), reason, {"prompt": prompt, "response": response})
    if best and any(isinstance(row.get("system"), str) for row in rows):
        best.columns["system"] = "system"
    return best


def convert(values: Values, columns: Mapping[str, str], tags: Mapping[str, str]) -> Example:
    system = optional_text(values, columns.get("system"))
    prompt = needed_text(values, columns.get("prompt", "prompt"), "prompt")
    response = needed_text(values, columns.get("response", "completion"), "response")
    messages = [Message("system", system)] if system.strip() else []
    return Example(messages=(*messages, Message("user", prompt), Message("assistant", response)))


FORMAT = Format("prompt_completion", COLUMNS, ("prompt", "response"), detect, convert)
