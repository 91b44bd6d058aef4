"""A conversation on its way through a template: its text, where in it somebody's words stand, and what is cited.

Not here: which of it is learned (studio.templates.answers, studio.templates.encoding).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from itertools import takewhile
from typing import Any, NamedTuple

from studio.data.example import Message
from studio.errors import TemplateError
from studio.templates import tools as tool_places
from studio.templates.confined import Unfinished
from studio.templates.quoting import Marks, Span, numbered, quoted, strings, unmarked, unnumbered, unused_marks
from studio.templates.rendering import MARK, Template, as_values, parsed_tools, render_marked
from studio.templates.tokenizer import TextTokenizer


class Written(NamedTuple):
    """A conversation as text. answers: what the template marks as such. cited: special strings that somebody wrote."""

    text: str
    answers: list[Span]
    cited: list[Span]


class Talk:
    """A conversation, the template that writes it, and the tokenizer that will read it."""

    def __init__(self, template: Template, messages: tuple[Message, ...], tools: str, tokenizer: TextTokenizer):
        """Raises: TemplateError: the template has no place for tools that the conversation holds."""
        tool_places.check(template, messages, tools, tokenizer)
        messages = tool_places.with_thoughts(template, messages, tokenizer.specials)
        self.template, self.messages, self.tools, self.tokenizer = template, messages, tools, tokenizer
        self._values: list[dict[str, Any]] = as_values(messages)
        self._tools = parsed_tools(tools)
        self._marks_answers = MARK.search(template.text) is not None

    @property
    def turns(self) -> list[int]:
        """Places of the assistant's turns."""
        return [index for index, message in enumerate(self.messages) if message.role == "assistant"]

    @cached_property
    def whole(self) -> Written:
        """All of it, with the end of the last answer where the template leaves that to the next turn."""
        written = self.written()
        if self.messages[-1].role != "assistant":
            return written
        end = closing(self.template, self.tokenizer)
        return written._replace(text=written.text + end) if end else written

    def written(self, *, until: int | None = None, prompt: bool = False) -> Written:
        """until: a number of turns. prompt: end where the next answer begins, without marks. Raises: TemplateError."""
        values, answers = self._values[:until], self._marks_answers and not prompt
        if not answers and not self._cites:
            return Written(self._rendered(values, self._tools, prompt), [], [])
        marks = self._marks
        between = marks[:2] if answers else ("", "")
        if not self._cites:
            return Written(*unmarked(self._rendered(values, self._tools, prompt, between), marks))
        cited = [quoted(each, self.tokenizer.special, marks) for each in (values, self._tools)]
        found = Written(*unmarked(self._rendered(*cited, prompt, between), marks))
        if found.text != self._rendered(values, self._tools, prompt):
            raise TemplateError(
                f"Template '{self.template.name}' reads special tokens out of what was written in a turn, so they "
                "cannot be kept as text there. Remove them from the row, or choose another template."
            )
        return found

    def shorter(self) -> Iterator[Talk]:
        """The same without the oldest question and what follows on it, then without the two oldest, and so on.

        The system text stays, and so does the last question.
        """
        begin = len(list(takewhile(lambda message: message.role == "system", self.messages)))
        asked = [index for index, message in enumerate(self.messages) if message.role == "user" and index > begin]
        for place in asked:
            if any(message.role == "assistant" for message in self.messages[place:]):
                yield Talk(self.template, (*self.messages[:begin], *self.messages[place:]), self.tools, self.tokenizer)

    @cached_property
    def contents(self) -> list[tuple[int, Span]]:
        """(turn, where its content stands in the whole text), as far as the template writes it unchanged."""
        text = self.whole.text
        values = [
            {**value, "content": numbered(value["content"], index)} if value["content"].strip() else value
            for index, value in enumerate(self._values)
        ]
        try:
            found, places = unnumbered(self._rendered(values, self._tools, False))
        except TemplateError:  # it takes contents apart, and cannot with numbers in them
            return self._sought(text)
        if not text.startswith(found):
            return self._sought(text)
        return [
            (index, span)
            for index, (begin, end) in places
            if (span := _completed(text, self.messages[index].content.strip(), begin, end))
        ]

    def _sought(self, text: str) -> list[tuple[int, Span]]:
        """Where the contents stand one after the other."""
        place, found = 0, []
        for index, message in enumerate(self.messages):
            words = message.content.strip()
            begin = text.find(words, place) if words else -1
            if begin >= 0:
                place = begin + len(words)
                found.append((index, (begin, place)))
        return found

    def _rendered(self, values: Any, tools: Any, prompt: bool, marks: tuple[str, str] = ("", "")) -> str:
        return render_marked(self.template, values, self.tokenizer.specials, prompt=prompt, marks=marks, tools=tools)

    @cached_property
    def _said(self) -> str:
        """Everything that somebody wrote."""
        if self._tools is None and not any(message.tool_calls or message.thought for message in self.messages):
            return "\n".join([message.content for message in self.messages])
        return "\n".join(strings([self._values, self._tools]))

    @cached_property
    def _cites(self) -> bool:
        """Whether it holds the string of a special token."""
        return self.tokenizer.special.search(self._said) is not None

    @cached_property
    def _marks(self) -> Marks:
        return unused_marks(self._said)


def _completed(text: str, words: str, begin: int | None, end: int | None) -> Span | None:
    """The span of which a template may have cut away one side: then it is as much of the words as stands there."""
    if begin is not None and end is not None:
        return begin, end
    if begin is not None:
        same = takewhile(lambda pair: pair[0] == pair[1], zip(text[begin:], words, strict=False))
        return begin, begin + sum(1 for _ in same)
    if end is not None:
        same = takewhile(lambda pair: pair[0] == pair[1], zip(reversed(text[:end]), reversed(words), strict=False))
        return end - sum(1 for _ in same), end
    return None


_ASKED = Message("user", "probe question")
_ANSWERED = Message("assistant", "probe answer")


@lru_cache(maxsize=64)
def closing(template: Template, tokenizer: TextTokenizer) -> str:
    """The special token of the next turn that ends an answer where the template writes none: the last one needs it too.

    Such as <|user|> of ChatGLM, at which the model is stopped. Empty for most templates, whose answers end by
    themselves, and for those after which no special token follows at all.
    """
    one, two = (
        _tried(template, turns, tokenizer.specials) for turns in ((_ASKED, _ANSWERED), (_ASKED, _ANSWERED, _ASKED))
    )
    _, known, after = two.partition(_ANSWERED.content)
    if not known or not one.rstrip().endswith(_ANSWERED.content):
        return ""
    return next((end for end in tokenizer.special_strings if after.startswith(end)), "")


def _tried(template: Template, messages: tuple[Message, ...], specials: Mapping[str, str]) -> str:
    try:
        return render_marked(template, messages, specials)
    except Unfinished:
        raise
    except TemplateError:
        return ""


THOUGHT = re.compile(r"(?:<think>|\A)(?:(?!<think>).)*?</think>\s*", re.DOTALL)
"""What the assistant thinks, in an answer; its beginning may stand in the prompt."""
