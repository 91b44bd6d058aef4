"""What each training stage sees of an example, whatever kind of data it came from.

Not here: how a row becomes an example (studio.data.formats), and how it is written as text (studio.templates).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from studio.data.example import Example, Kind, Message


class Unlearned(NamedTuple):
    """Why rows of a kind are left out, of several rows and of one, and what to do if that leaves none."""

    many: str
    one: str
    remedy: str


NO_ANSWER = Unlearned(
    "hold a prompt without an answer",
    "holds a prompt without an answer",
    "Map a column to the answer, or choose another dataset.",
)
NO_PAIR = Unlearned(
    "hold no second answer to prefer the first to",
    "holds no second answer to prefer the first to",
    "Choose a dataset of preferences, with a chosen and a rejected answer, or the stage sft.",
)
NO_MARK = Unlearned(
    "hold no mark that says whether the answer is good",
    "holds no mark that says whether the answer is good",
    "Choose a dataset whose answers are marked good or bad, or of preferences, or another stage.",
)
NO_LABEL = Unlearned("have no label", "has no label", "Map a column to the label, or choose another stage.")
NO_PROMPT = Unlearned(
    "are plain text without a prompt",
    "is plain text without a prompt",
    "Choose a dataset of prompts or conversations, or the stage pretrain.",
)
BAD_MARK = Unlearned("are marked bad", "is marked bad", "Add rows with good answers, or choose another dataset.")


@dataclass(frozen=True)
class Learning:
    """What one stage learns from.

    see: an example as the stage needs it; None: the stage learns nothing from it. unlearned: why, by the kind of the
    example.
    """

    see: Callable[[Example], Example | None]
    unlearned: Mapping[Kind, Unlearned]


def learning(stage: str) -> Learning:
    """What a stage, by its kind, learns from."""
    return _LEARNING[stage]


def sft(example: Example) -> Example | None:
    """What supervised fine-tuning learns from: a conversation or plain text; None if it learns nothing from it.

    A classified text becomes a question that its label answers. Of two answers the better one is learned, of answers
    marked good or bad only the good ones.
    """
    match example.kind:
        case "classification":
            asked = Message("user", example.text or "")
            return Example(messages=(asked, Message("assistant", str(example.label))))
        case "preference":
            return Example(messages=(*example.messages, *example.chosen), tools=example.tools)
        case "unpaired":
            good = example.label is True
            return Example(messages=(*example.messages, *example.chosen), tools=example.tools) if good else None
        case "prompt":
            return None
        case _:
            return example


def pretrain(example: Example) -> Example | None:
    """Plain text; a conversation is learned as the text that its template makes of it, a classified text as it is."""
    if example.kind == "classification":
        return Example(text=example.text, kind="text")
    return sft(example)


def classify(example: Example) -> Example | None:
    """A text with its label."""
    return example if example.kind == "classification" else None


def preference(example: Example) -> Example | None:
    """A prompt with two answers."""
    return example if example.kind == "preference" else None


def unpaired(example: Example) -> Example | None:
    """A prompt with an answer that is marked good or bad; of two answers one is good and one is bad."""
    return example if example.kind in ("unpaired", "preference") else None


def prompt(example: Example) -> Example | None:
    """A prompt for the model's own answers. What the data answers, a label too, is the reference that rewards may use.

    The example that comes out has the prompt as messages and the reference, if there is one, as its label.
    """
    match example.kind:
        case "text":
            return None
        case "classification":
            return Example(messages=(Message("user", example.text or ""),), kind="prompt", label=str(example.label))
        case "prompt":
            return example
        case "preference":
            reference = example.answer
            return Example(messages=example.messages, kind="prompt", label=reference, tools=example.tools)
        case "unpaired":
            reference = example.answer if example.label is True else None
            return Example(messages=example.messages, kind="prompt", label=reference, tools=example.tools)
        case _:
            last = max(place for place, message in enumerate(example.messages) if message.role == "assistant")
            if last == 0:
                return None
            reference = example.messages[last].content
            return Example(messages=example.messages[:last], kind="prompt", label=reference, tools=example.tools)


_KINDS: tuple[Kind, ...] = ("messages", "text", "classification", "preference", "unpaired", "prompt")
_ANSWERS = Learning(sft, {"unpaired": BAD_MARK, "prompt": NO_ANSWER})
_PAIRS = Learning(preference, dict.fromkeys(_KINDS, NO_PAIR))
_PROMPTS = Learning(prompt, dict.fromkeys(_KINDS, NO_PROMPT))
_LEARNING: Mapping[str, Learning] = {
    "sft": _ANSWERS,
    "pretrain": Learning(pretrain, _ANSWERS.unlearned),
    "classify": Learning(classify, dict.fromkeys(_KINDS, NO_LABEL)),
    "dpo": _PAIRS,
    "orpo": _PAIRS,
    "cpo": _PAIRS,
    "reward": _PAIRS,
    "kto": Learning(unpaired, dict.fromkeys(_KINDS, NO_MARK)),
    "grpo": _PROMPTS,
    "rloo": _PROMPTS,
}
