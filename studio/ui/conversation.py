"""The two-column conversation as plain values: turns, what each column shows, and the figures under it. Pure.

Not here: who answers (studio.serving), and the widgets (studio.ui.tabs.chat).
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from studio.ui import run_panel
from studio.ui.texts import table

Turns = tuple[dict[str, str], ...]


@dataclass(frozen=True)
class Column:
    """One side of the conversation. figures and fault belong to its newest answer."""

    turns: Turns = ()
    tokens: int = 0
    tokens_per_s: float | None = None
    first_token_s: float | None = None
    fault: str = ""
    done: bool = False

    def asked(self, text: str) -> Column:
        """With one more question. A question that was never answered is dropped, so that turns alternate."""
        return Column((*self.settled().turns, {"role": "user", "content": text}))

    def settled(self) -> Column:
        """Without a last question that has no answer."""
        unanswered = self.turns and self.turns[-1]["role"] == "user"
        return replace(self, turns=self.turns[:-1]) if unanswered else self

    def heard(self, delta: Any) -> Column:
        """With a further piece of the answer."""
        return replace(
            self,
            turns=_longer(self.turns, delta.text),
            tokens=delta.tokens,
            tokens_per_s=delta.tokens_per_s,
            first_token_s=delta.first_token_s,
            fault=delta.error or self.fault,
            done=delta.done,
        )

    def messages(self, system: str | None) -> list[dict[str, str]]:
        """What the model is asked."""
        return [*([{"role": "system", "content": system}] if system else []), *self.turns]

    def shown(self) -> str:
        """The turns as conversation.js takes them."""
        return json.dumps(self.turns)

    def figures(self, language: str) -> str:
        """Tokens, speed and wait of the newest answer, or what went wrong, as markup."""
        if self.fault:
            return run_panel.problem(self.fault)
        if not self.tokens:
            return '<div class="quiet under">&nbsp;</div>'  # the line's place, so that nothing jumps
        words = table(language)
        speed = f"{self.tokens_per_s:.1f}" if self.tokens_per_s else "–"
        first = f"{self.first_token_s:.2f}" if self.first_token_s is not None else "–"
        line = words["chat.figures"].format(tokens=f"{self.tokens:,}", speed=speed, first=first)
        state = "done" if self.done else "writing"
        return f'<div class="quiet under" data-tokens="{self.tokens}" data-answer="{state}">{html.escape(line)}</div>'


def loading(phase: str, seconds: float, words: Mapping[str, str]) -> str:
    """What the server is doing while it loads, and since when."""
    name = words.get(f"chat.phase.{phase}", phase)
    text = words["chat.loading"].format(phase=name, seconds=seconds)
    return f'<div class="quiet" role="status">{html.escape(text)}</div>'


def _longer(turns: Turns, text: str) -> Turns:
    if not text:
        return turns
    if turns and turns[-1]["role"] == "assistant":
        return (*turns[:-1], {"role": "assistant", "content": turns[-1]["content"] + text})
    return (*turns, {"role": "assistant", "content": text})
