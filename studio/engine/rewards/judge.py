"""The score of a reward model that was trained here: base, head and adapter of a finished run of the reward stage."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.data.example import Example, Message
from studio.engine.evaluation.judging import rewards, texts
from studio.engine.fitting import check_adapter
from studio.engine.models.load import load_base, load_tokenizer, recorded, template_of
from studio.engine.models.resolve import resolve
from studio.engine.trained import with_adapter
from studio.errors import ModelError
from studio.specs import TrainSpec


@dataclass(frozen=True)
class Judge:
    """A finished run of the reward stage: its spec, and the folder that it left."""

    spec: TrainSpec
    folder: Path


def judged(judge: Judge | None) -> Callable[..., list[float | None]]:
    """Scores by a reward model, under the template that it was trained with.

    Raises: ModelError: there is none, it is no reward model, or it cannot be loaded.
    """
    if judge is None:
        raise ModelError("No reward model is given. Set stage.reward_model to a finished run of the stage reward.")
    labels = recorded(judge.folder, "labels")
    if labels is None or len(labels) != 1:
        raise ModelError(f"{judge.folder} is no reward model. Name a finished run of the stage reward.")
    base = resolve(judge.spec.model.name, judge.spec.model.revision, progress=lambda *_: None)
    check_adapter(judge.folder, base)
    tokenizer, text_tokenizer = load_tokenizer(base)
    template = template_of(judge.folder, judge.spec.template.name, text_tokenizer)
    model = load_base(base, dtype="fp32", labels=labels)
    model = with_adapter(model, judge.folder)

    def reward(*, completions: list[str], conversation: list[str], **_: Any) -> list[float | None]:
        rows = texts(
            [_answered(turns, answer) for turns, answer in zip(conversation, completions, strict=True)],
            judge.spec,
            template,
            text_tokenizer,
        )
        scores = iter(rewards(model, [ids for sides in rows for ids in sides], tokenizer=tokenizer))
        return [next(scores) if sides else None for sides in rows]

    return reward


def _answered(turns: str, answer: str) -> Example:
    """A conversation, as JSON of role and content, with an answer to be scored."""
    messages = tuple(Message(turn["role"], turn["content"]) for turn in json.loads(turns))
    return Example(messages, kind="unpaired", chosen=(Message("assistant", answer),))
