"""Conversations to tokens: which of them are learned, what precedes an answer, and what ends one.

The preview, the trainer and the chat all call encode() and generation_prompt(), so they cannot disagree. Not here:
batching and padding (studio.engine).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

from studio.data.example import Example, Message
from studio.errors import TemplateError
from studio.templates import tools as tool_places
from studio.templates.quoting import Marks, Span, quoted, strings, unmarked, unused_marks
from studio.templates.rendering import MARK, Template, as_values, parsed_tools, render_marked, with_system
from studio.templates.tokenizer import TextTokenizer

Supervise = Literal["assistant", "last", "all"]


class Token(NamedTuple):
    """A token for the preview. text: the characters it stands for; empty where it is only part of one."""

    id: int
    text: str
    start: int
    end: int
    role: Literal["assistant", "prompt"]
    supervised: bool


@dataclass(frozen=True)
class Encoded:
    """A conversation as tokens. text is whole, also where the tokens are cut at max_length.

    input_ids, supervised and offsets have one entry per token; offsets and answers are [start, end) in characters.
    escaped: strings of special tokens that stood in what somebody wrote, and were therefore encoded as plain text.
    """

    text: str
    input_ids: list[int]
    supervised: list[bool]
    offsets: list[tuple[int, int]]
    answers: list[tuple[int, int]]
    truncated: bool
    escaped: int = 0

    @property
    def learns(self) -> int:
        """Tokens that carry loss. The first of all is never predicted, so it is none of them."""
        return sum(self.supervised[1:])

    @property
    def tokens(self) -> list[Token]:
        """The tokens with their text, for display."""
        roles = ["assistant" if any(s <= start < e for s, e in self.answers) else "prompt" for start, _ in self.offsets]
        together = zip(self.input_ids, self.offsets, roles, self.supervised, strict=True)
        return [Token(i, self.text[s:e], s, e, role, learned) for i, (s, e), role, learned in together]


def encode(
    example: Example | Sequence[Message],
    template: Template,
    tokenizer: TextTokenizer,
    *,
    supervise: Supervise = "assistant",
    system: str | None = None,
    max_length: int | None = None,
) -> Encoded:
    """The tokens of an example, and which of them carry loss.

    An answer's end token is learned with it; white space after that is not. Plain text is learned whole, with an end
    token, and special tokens in it stay special, because it is written for a model; in a conversation they are text.
    supervise: every answer, the last one, or all of the text. max_length: tokens that are kept.
    Raises: TemplateError: the template cannot write the conversation, has no place for its tools, or does not show
        where its answers are.
    """
    cited: list[Span] = []
    if isinstance(example, Example) and example.text is not None:
        text = tokenizer.start_string + example.text + tokenizer.specials.get("eos_token", "")
        answers = learned = [(0, len(text))]
    else:
        messages, tools = (example.messages, example.tools) if isinstance(example, Example) else (example, "")
        talk = _Talk(template, with_system(messages, system), tools, tokenizer)
        text, answers, cited = _text_and_answers(talk, supervise)
        learned = {"assistant": answers, "last": answers[-1:], "all": [(0, len(text))]}[supervise]
    ids, offsets = tokenizer.encode(text, cited)
    kept, places = ids[:max_length], offsets[:max_length]
    supervised = list(_inside(places, learned))
    return Encoded(text, kept, supervised, places, answers, len(kept) < len(ids), len(cited))


def generation_prompt(
    messages: Sequence[Message],
    template: Template,
    tokenizer: TextTokenizer,
    system: str | None = None,
    tools: str = "",
) -> list[int]:
    """The tokens after which the model answers: exactly those that precede an answer in training.

    tools: a JSON list of the functions that it may call.
    """
    text, _, cited = _Talk(template, with_system(messages, system), tools, tokenizer).written(prompt=True)
    return tokenizer.encode(text, cited)[0]


def stop_tokens(template: Template, tokenizer: TextTokenizer) -> list[int]:
    """Tokens that end an answer: the tokenizer's end token, the template's stops, what it writes after an answer."""
    strings = [tokenizer.specials.get("eos_token", ""), *template.stop, _end_string(template, tokenizer)]
    ids = (tokenizer.backend.token_to_id(string) for string in strings if string)
    return list(dict.fromkeys(each for each in ids if each is not None))


def concerns(template: Template, tokenizer: TextTokenizer) -> list[str]:
    """What does not fit between a template and a tokenizer, in sentences to show beside the choice."""
    missing = [stop for stop in template.stop if tokenizer.backend.token_to_id(stop) is None]
    return [
        f"This model has no token {stop}: it is written as {len(tokenizer.ids(stop))} pieces, and answers may not stop "
        "there. A template that ends with the model's own end token, such as default or alpaca, fits better."
        for stop in missing
    ]


class _Talk:
    """A conversation on its way through a template. written() has the marks taken out again."""

    def __init__(self, template: Template, messages: tuple[Message, ...], tools: str, tokenizer: TextTokenizer):
        self.template, self.messages, self.tokenizer = template, messages, tokenizer
        own = tokenizer.chat_template or ""
        tool_places.check(template, messages, tools, tokenizer.specials, own)
        self._values: list[dict[str, Any]] = as_values(messages)
        self._tools = parsed_tools(tools)
        self._marks_answers = MARK.search(template.text) is not None

    @property
    def turns(self) -> list[int]:
        """Places of the assistant's turns."""
        return [index for index, message in enumerate(self.messages) if message.role == "assistant"]

    def written(self, *, until: int | None = None, prompt: bool = False) -> tuple[str, list[Span], list[Span]]:
        """(text, what the template marks as answers, special strings in what somebody wrote). until: turns."""
        values, answers = self._values[:until], self._marks_answers and not prompt
        if not answers and not self._cites:
            return self._rendered(values, self._tools, prompt, ("", "")), [], []
        marks = self._marks
        between = marks[:2] if answers else ("", "")
        if not self._cites:
            return unmarked(self._rendered(values, self._tools, prompt, between), marks)
        cited = [quoted(each, self.tokenizer.special, marks) for each in (values, self._tools)]
        found = unmarked(self._rendered(*cited, prompt, between), marks)
        if found[0] != self._rendered(values, self._tools, prompt, ("", "")):
            raise TemplateError(
                f"Template '{self.template.name}' reads special tokens out of what was written in a turn, so they "
                "cannot be kept as text there. Remove them from the row, or choose another template."
            )
        return found

    def _rendered(self, values: Any, tools: Any, prompt: bool, marks: tuple[str, str]) -> str:
        return render_marked(self.template, values, self.tokenizer.specials, prompt=prompt, marks=marks, tools=tools)

    @cached_property
    def _said(self) -> str:
        """Everything that somebody wrote."""
        if self._tools is None and not any(message.tool_calls for message in self.messages):
            return "\n".join([message.content for message in self.messages])
        return "\n".join(strings([self._values, self._tools]))

    @cached_property
    def _cites(self) -> bool:
        """Whether it holds the string of a special token."""
        return self.tokenizer.special.search(self._said) is not None

    @cached_property
    def _marks(self) -> Marks:
        return unused_marks(self._said)


def _text_and_answers(talk: _Talk, supervise: Supervise) -> tuple[str, list[Span], list[Span]]:
    if supervise != "all":
        return _answers(talk, only_last=supervise == "last")
    try:
        return _answers(talk, only_last=False)
    except TemplateError:
        # all of the text is learned, so the answers are only wanted for show; what cannot be written raises again
        text, _, cited = talk.written()
        return text, [], cited


_PROBE = (Message("user", "Hello"), Message("assistant", "World"))


def _end_string(template: Template, tokenizer: TextTokenizer) -> str:
    """The special token that a template writes after an answer; empty if there is none."""
    try:
        text, answers, _ = _answers(_Talk(template, _PROBE, "", tokenizer), only_last=True)
    except TemplateError:
        return ""
    answer = text[slice(*answers[-1])]
    return next((end for end in tokenizer.special_strings if answer.endswith(end)), "")


def _inside(offsets: Sequence[Span], spans: Sequence[Span]) -> Iterator[bool]:
    """For each token whether it begins in a span. Both ascend, so one pass is enough."""
    waiting = iter(spans)
    begin, end = next(waiting, (0, 0))
    for start, _ in offsets:
        while start >= end and (following := next(waiting, None)):
            begin, end = following
        yield begin <= start < end


def _answers(talk: _Talk, *, only_last: bool) -> tuple[str, list[Span], list[Span]]:
    """The text, where in it the answers are, each with its end token, and the special strings that somebody wrote.

    only_last: find just the last one.
    """
    text, spans, cited = talk.written()
    turns = talk.turns
    if not spans:
        wanted = turns[-1:] if only_last else turns
        return text, [_found_by_prefix(talk, turn, text, cited) for turn in wanted], cited
    if len(spans) != len(turns):
        raise TemplateError(
            f"Template '{talk.template.name}' marks {len(spans)} answers in a conversation that has {len(turns)}. "
            "Choose another template, or set template.supervise to all."
        )
    return text, [_with_end(talk, text, span, cited) for span in spans], cited


def _found_by_prefix(talk: _Talk, turn: int, text: str, cited: Sequence[Span]) -> Span:
    """Where an answer and its end token are in the text of a template without marks.

    What the model sees before it answers must be how the text begins: that is proven here for each answer, because
    some templates write earlier turns differently once later ones follow.
    """
    prompt, _, _ = talk.written(until=turn, prompt=True)
    message = talk.messages[turn]
    if message.tool_calls and text.startswith(prompt):
        return len(prompt), _end_of_calls(talk, text, len(prompt), cited)
    content = message.content
    answer = content.strip()
    place = text.find(answer, len(prompt)) if text.startswith(prompt) else -1
    # between the two may stand an empty thought, but not the end of another turn
    if place < 0 or any(special in text[len(prompt) : place] for special in talk.tokenizer.special_strings):
        which = sum(message.role == "assistant" for message in talk.messages[: turn + 1])
        raise TemplateError(
            f"Template '{talk.template.name}' has no generation marks, and answer {which} does not follow in the whole "
            "conversation on what the model sees before it answers. Choose a template with marks, such as chatml, or "
            "set template.supervise to last or all."
        )
    end = place + len(answer)
    trailing = content[len(content.rstrip()) :]
    return len(prompt), _end_after(talk, text, end + len(trailing) * text.startswith(trailing, end))


def _with_end(talk: _Talk, text: str, span: Span, cited: Sequence[Span]) -> Span:
    """A marked span up to its end token, which may stand in it or right after it."""
    begin, end = span
    written = begin + len(text[begin:end].rstrip())
    ends = (*talk.template.stop, *talk.tokenizer.special_strings)
    if text[begin:written].endswith(ends) and all(stop != written for _, stop in cited):
        return begin, written
    return begin, _end_after(talk, text, end)


def _end_after(talk: _Talk, text: str, place: int) -> int:
    """Where the end token ends that follows on an answer.

    Right after the answer any special token is one; after white space only one that is known to be, because the next
    turn may begin there.
    """
    after_space = len(text) - len(text[place:].lstrip())
    found = [place + len(end) for end in talk.tokenizer.special_strings if text.startswith(end, place)]
    found += [after_space + len(end) for end in _ends(talk) if text.startswith(end, after_space)]
    if not found:
        raise _endless(talk)
    return found[0]


def _end_of_calls(talk: _Talk, text: str, begin: int, cited: Sequence[Span]) -> int:
    """Where the end token ends that follows on calls of tools, which each template writes in its own way."""
    taken = {start for start, _ in cited}
    ends = [
        (found.start(), found.end())
        for end in _ends(talk)
        for found in re.finditer(re.escape(end), text[begin:])
        if begin + found.start() not in taken
    ]
    if not ends:
        raise _endless(talk)
    return begin + min(ends)[1]


def _ends(talk: _Talk) -> tuple[str, ...]:
    """Strings that are known to end an answer."""
    eos = talk.tokenizer.specials.get("eos_token", "")
    return tuple(end for end in (*talk.template.stop, eos) if end)


def _endless(talk: _Talk) -> TemplateError:
    return TemplateError(
        f"Template '{talk.template.name}' writes no end token after an answer, so the model would not learn to stop. "
        "Choose another template, such as chatml, or set template.supervise to all."
    )
