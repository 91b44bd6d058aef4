"""Conversations to tokens: which of them are learned, what precedes an answer, and what ends one.

The preview, the trainer and the chat all call encode() and generation_prompt(), so they cannot disagree. Not here:
batching and padding (studio.engine).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from studio.data.example import Example, Message
from studio.errors import TemplateError
from studio.templates.rendering import MARK, Template, render, render_marked, with_system
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
    """

    text: str
    input_ids: list[int]
    supervised: list[bool]
    offsets: list[tuple[int, int]]
    answers: list[tuple[int, int]]
    truncated: bool

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
    token. supervise: every answer, the last one, or all of the text. max_length: tokens that are kept.
    Raises: TemplateError: the template cannot write the conversation, or does not show where its answers are.
    """
    if isinstance(example, Example) and example.text is not None:
        text = tokenizer.start_string + example.text + tokenizer.specials.get("eos_token", "")
        answers = learned = [(0, len(text))]
    else:
        messages = with_system(example.messages if isinstance(example, Example) else example, system)
        text, answers = _text_and_answers(template, messages, tokenizer, supervise)
        learned = {"assistant": answers, "last": answers[-1:], "all": [(0, len(text))]}[supervise]
    encoding = tokenizer.backend.encode(text, add_special_tokens=False)
    ids, offsets = encoding.ids[:max_length], encoding.offsets[:max_length]
    supervised = list(_inside(offsets, learned))
    return Encoded(text, ids, supervised, offsets, answers, len(ids) < len(encoding.ids))


def generation_prompt(
    messages: Sequence[Message], template: Template, tokenizer: TextTokenizer, system: str | None = None
) -> list[int]:
    """The tokens after which the model answers: exactly those that precede an answer in training."""
    specials = tokenizer.specials
    return tokenizer.ids(render(template, messages, add_generation_prompt=True, system=system, specials=specials))


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


def _text_and_answers(
    template: Template, messages: Sequence[Message], tokenizer: TextTokenizer, supervise: Supervise
) -> tuple[str, list[tuple[int, int]]]:
    if supervise != "all":
        return _answers(template, messages, tokenizer, only_last=supervise == "last")
    try:
        return _answers(template, messages, tokenizer, only_last=False)
    except TemplateError:
        # all of the text is learned, so the answers are only wanted for show; what cannot be written raises again
        return render_marked(template, messages, tokenizer.specials), []


_PROBE = (Message("user", "Hello"), Message("assistant", "World"))


def _end_string(template: Template, tokenizer: TextTokenizer) -> str:
    """The special token that a template writes after an answer; empty if there is none."""
    try:
        text, answers = _answers(template, _PROBE, tokenizer, only_last=True)
    except TemplateError:
        return ""
    answer = text[slice(*answers[-1])]
    return next((end for end in tokenizer.special_strings if answer.endswith(end)), "")


def _inside(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> Iterator[bool]:
    """For each token whether it begins in a span. Both ascend, so one pass is enough."""
    waiting = iter(spans)
    begin, end = next(waiting, (0, 0))
    for start, _ in offsets:
        while start >= end and (following := next(waiting, None)):
            begin, end = following
        yield begin <= start < end


def _answers(
    template: Template, messages: Sequence[Message], tokenizer: TextTokenizer, *, only_last: bool
) -> tuple[str, list[tuple[int, int]]]:
    """The text, and where in it the answers are, each with its end token. only_last: find just the last one."""
    text, spans = _marked_spans(template, messages, tokenizer.specials)
    turns = [index for index, message in enumerate(messages) if message.role == "assistant"]
    if not spans:
        wanted = turns[-1:] if only_last else turns
        return text, [_found_by_prefix(template, messages, turn, text, tokenizer) for turn in wanted]
    if len(spans) != len(turns):
        raise TemplateError(
            f"Template '{template.name}' marks {len(spans)} answers in a conversation that has {len(turns)}. "
            "Choose another template, or set template.supervise to all."
        )
    return text, [_with_end(template, text, span, tokenizer) for span in spans]


def _marked_spans(
    template: Template, messages: Sequence[Message], specials: Mapping[str, str]
) -> tuple[str, list[tuple[int, int]]]:
    """The text, and the spans between its generation marks."""
    if not MARK.search(template.text):
        return render_marked(template, messages, specials), []
    opening, closing = marks = _unused_marks(messages)
    pieces = re.split(f"([{opening}{closing}])", render_marked(template, messages, specials, marks=marks))
    text, spans, place, begin = [], [], 0, 0
    for piece in pieces:
        if piece == opening:
            begin = place
        elif piece == closing:
            spans.append((begin, place))
        else:
            text.append(piece)
            place += len(piece)
    return "".join(text), [span for span in spans if span[0] < span[1]]


def _unused_marks(messages: Sequence[Message]) -> tuple[str, str]:
    """Two of the characters that Unicode keeps for a program's own use and that no turn holds."""
    letters = [chr(code) for code in range(0xFDD0, 0xFDF0)]
    free = [letter for letter in letters if not any(letter in message.content for message in messages)]
    if len(free) < 2:
        raise TemplateError("This conversation holds every character that is kept for marks (U+FDD0 to U+FDEF).")
    return free[0], free[1]


def _found_by_prefix(
    template: Template, messages: Sequence[Message], turn: int, text: str, tokenizer: TextTokenizer
) -> tuple[int, int]:
    """Where an answer and its end token are in the text of a template without marks.

    What the model sees before it answers must be how the text begins: that is proven here for each answer, because
    some templates write earlier turns differently once later ones follow.
    """
    prompt = render_marked(template, messages[:turn], tokenizer.specials, prompt=True)
    content = messages[turn].content
    answer = content.strip()
    place = text.find(answer, len(prompt)) if text.startswith(prompt) else -1
    # between the two may stand an empty thought, but not the end of another turn
    if place < 0 or any(special in text[len(prompt) : place] for special in tokenizer.special_strings):
        which = sum(message.role == "assistant" for message in messages[: turn + 1])
        raise TemplateError(
            f"Template '{template.name}' has no generation marks, and answer {which} does not follow in the whole "
            "conversation on what the model sees before it answers. Choose a template with marks, such as chatml, or "
            "set template.supervise to last or all."
        )
    end = place + len(answer)
    trailing = content[len(content.rstrip()) :]
    return len(prompt), _end_after(template, text, end + len(trailing) * text.startswith(trailing, end), tokenizer)


def _with_end(template: Template, text: str, span: tuple[int, int], tokenizer: TextTokenizer) -> tuple[int, int]:
    """A marked span up to its end token, which may stand in it or right after it."""
    begin, end = span
    written = text[begin:end].rstrip()
    if written.endswith((*template.stop, *tokenizer.special_strings)):
        return begin, begin + len(written)
    return begin, _end_after(template, text, end, tokenizer)


def _end_after(template: Template, text: str, place: int, tokenizer: TextTokenizer) -> int:
    """Where the end token ends that follows on an answer.

    Right after the answer any special token is one; after white space only one that is known to be, because the next
    turn may begin there.
    """
    ends = (*template.stop, tokenizer.specials.get("eos_token", ""))
    after_space = len(text) - len(text[place:].lstrip())
    found = [place + len(end) for end in tokenizer.special_strings if text.startswith(end, place)]
    found += [after_space + len(end) for end in ends if end and text.startswith(end, after_space)]
    if not found:
        raise TemplateError(
            f"Template '{template.name}' writes no end token after an answer, so the model would not learn to stop. "
            "Choose another template, such as chatml, or set template.supervise to all."
        )
    return found[0]
