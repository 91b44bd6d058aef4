"""What is wrong with a template before it is used: for a tokenizer, and by itself.

Not here: the template's syntax and header (studio.templates.library).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from studio.templates.rendering import Template
from studio.templates.tokenizer import TextTokenizer

Level = Literal["error", "warning"]
Kind = Literal[
    "syntax", "unfinished", "variable", "wrong", "refuses", "drops", "tools", "changes", "prompt", "no_end",
    "no_answers", "stop", "specials",
]  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """Something about a template. text: a sentence that says what, where, and what to do.

    level: an error is in the way of training on answers; a warning is not, but somebody should know.
    """

    kind: Kind
    level: Level
    text: str


def check(template: Template, tokenizer: TextTokenizer | None = None) -> list[Finding]:
    """What is wrong with a template, errors first; with a tokenizer also what does not fit between the two.

    A draft is Template(name, text, origin="own"), or library.parse(name, text, "own") with the words of its header.
    Never raises for what a template does. One that never ends is tried once, for confined.LIMIT_S.
    """
    return []


def concerns(template: Template, tokenizer: TextTokenizer) -> list[str]:
    """What does not fit between a template and a tokenizer, in sentences to show beside the choice."""
    missing = [stop for stop in template.stop if tokenizer.backend.token_to_id(stop) is None]
    return [
        f"This model has no token {stop}: it is written as {len(tokenizer.ids(stop))} pieces, and answers may not stop "
        "there. A template that ends with the model's own end token, such as default or alpaca, fits better."
        for stop in missing
    ]
