"""Conversations to tokens: which of them are learned and why, what precedes an answer, and what ends one.

The preview, the audit, the trainer and the chat all call encode() and generation_prompt(), so they cannot disagree.
Not here: where answers stand in a text (answers), how what is too long is cut (cutting), batches (studio.engine).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from itertools import islice
from operator import itemgetter
from typing import NamedTuple, TypeVar

from studio.data.example import Example, Message, ToolCall
from studio.errors import TemplateError
from studio.templates import cutting, supervision
from studio.templates.answers import answers
from studio.templates.confined import Unfinished
from studio.templates.cutting import Shortened
from studio.templates.pieces import Cut
from studio.templates.quoting import Span
from studio.templates.rendering import Template, with_system
from studio.templates.supervision import Part, Policy, Reason, Role, answers_of, parts_of
from studio.templates.talk import Talk
from studio.templates.tokenizer import TextTokenizer
from studio.templates.tools import lacks

T = TypeVar("T")
_AT_ONCE = 64
"""Examples of which encode_all() writes the texts before it tokenises them."""


class Token(NamedTuple):
    """A token for display.

    text: the characters it stands for, empty for the second and later ones of those that share a character.
    """

    id: int
    text: str
    start: int
    end: int
    role: Role
    supervised: bool
    reason: Reason


@dataclass(frozen=True)
class Encoded:
    """A conversation as tokens. text is whole, also where tokens are cut away.

    input_ids and offsets have one entry per kept token; learned are [first, last) ranges of those that carry loss.
    offsets and answers are [start, end) in characters. total: tokens before anything was cut, and answered: those of
    the answers. cut: how it was shortened; empty where it fits. escaped: strings of special tokens that stood in what
    somebody wrote, so were encoded as plain text.
    """

    text: str
    input_ids: list[int]
    offsets: Sequence[Span]
    learned: list[Span]
    answers: list[Span]
    total: int
    answered: int
    cut: Shortened = ""
    escaped: int = 0
    parts: Sequence[Part] | partial[Iterator[Part]] = field(default=(), compare=False, repr=False)

    @property
    def truncated(self) -> bool:
        return self.cut != ""

    @property
    def learns(self) -> int:
        """Tokens that carry loss. The first of all is never predicted, so it is none of them."""
        return sum(end - max(begin, 1) for begin, end in self.learned if end > 1)

    @cached_property
    def supervised(self) -> list[bool]:
        """For each token whether it carries loss."""
        flags = [False] * len(self.input_ids)
        for begin, end in self.learned:
            flags[begin:end] = [True] * (end - begin)
        return flags

    @cached_property
    def tokens(self) -> list[Token]:
        """The tokens with their text, whose they are, and why they are learned or not."""
        parts = sorted(self.parts() if callable(self.parts) else self.parts, key=lambda part: part[:2])
        starts = [part[0] for part in parts]
        return list(self._told(parts, starts))

    def _told(self, parts: Sequence[Part], starts: Sequence[int]) -> Iterator[Token]:
        shown = 0
        for number, (start, end), on in zip(self.input_ids, self.offsets, self.supervised, strict=True):
            place = bisect_left(starts, start + 1) - 1
            inside = place >= 0 and start < parts[place][1]
            role, reason = parts[place][2:] if inside else ("template", "text" if on else "template")
            # a token may also begin within the last character of the one before it
            yield Token(number, self.text[max(start, shown) : end], start, end, role, on, reason)
            shown = max(shown, end)


def encode(
    example: Example | Sequence[Message], template: Template, tokenizer: TextTokenizer, policy: Policy = Policy()
) -> Encoded:
    """The tokens of an example, and which of them carry loss.

    An answer's end token is learned with it; white space after that is not. Plain text is learned whole, with an end
    token, and special tokens in it stay special, because it is written for a model; in a conversation they are text.
    Raises: TemplateError: the template cannot write the conversation, has no place for its tools, or does not show
        where its answers are.
    """
    begun = _begun(example, template, tokenizer, policy)
    cut = _by_pieces([begun], tokenizer)[0] if isinstance(begun, _Marked) else None
    return _finished(begun, cut, tokenizer, policy)


def encode_all(
    examples: Iterable[Example], template: Template, tokenizer: TextTokenizer, policy: Policy
) -> Iterator[Encoded | TemplateError | MemoryError]:
    """encode() of each, or what it raises: much quicker than one by one.

    Some texts are written, then all of them are tokenised: tables of a tokenizer and programs of a template drive each
    other out of a core's cache, and what stands in many of them is tokenised once.
    """
    rest = iter(examples)
    while some := list(islice(rest, _AT_ONCE)):
        begun = [_tried(partial(_begun, example, template, tokenizer, policy)) for example in some]
        cut = iter(_by_pieces([each for each in begun if isinstance(each, _Marked)], tokenizer))
        for each in begun:
            if isinstance(each, TemplateError | MemoryError):
                yield each
            else:
                tokens = next(cut) if isinstance(each, _Marked) else None
                yield _tried(partial(_finished, each, tokens, tokenizer, policy))


def _tried(step: Callable[[], T]) -> T | TemplateError | MemoryError:
    try:
        return step()
    except (TemplateError, MemoryError) as error:
        return error


class _Marked(NamedTuple):
    """A conversation, written. answers: (turn, where it stands). learned: spans of the text that are learned."""

    talk: Talk
    answers: list[tuple[int, Span]]
    learned: list[Span]

    @property
    def borders(self) -> list[int]:
        """Places that no token may reach across.

        What precedes an answer must be the tokens after which the model will answer, so none may hold both.
        """
        return sorted({place for _, span in self.answers for place in span})


def _marked(talk: Talk, policy: Policy) -> _Marked:
    spans = answers_of(talk, policy)
    return _Marked(talk, spans, supervision.learned(talk, spans, policy))


def _by_pieces(some: Sequence[_Marked], tokenizer: TextTokenizer) -> list[Cut | None]:
    """The tokens of conversations; None for those in which special tokens are cited, or all with other tokenizers."""
    pieces = tokenizer.pieces
    if pieces is None:
        return [None] * len(some)
    cut = iter(pieces.encode([(each.talk.whole.text, each.borders) for each in some if not each.talk.whole.cited]))
    return [None if each.talk.whole.cited else next(cut) for each in some]


def _begun(
    example: Example | Sequence[Message], template: Template, tokenizer: TextTokenizer, policy: Policy
) -> _Marked | str:
    """The conversation, written; or the plain text."""
    if isinstance(example, Example) and example.text is not None:
        return example.text
    messages, tools = (example.messages, example.tools) if isinstance(example, Example) else (example, "")
    return _marked(Talk(template, with_system(messages, policy.system), tools, tokenizer), policy)


def _finished(begun: _Marked | str, cut: Cut | None, tokenizer: TextTokenizer, policy: Policy) -> Encoded:
    if isinstance(begun, str):
        return cutting.fitted(_plain_text(begun, tokenizer), policy.max_length, policy.truncation)
    talk = begun.talk
    return cutting.fitted(
        _conversation(begun, cut, policy),
        policy.max_length,
        policy.truncation,
        sources=lambda: [span for turn, span in talk.contents if talk.messages[turn].role != "assistant"],
        shorter=lambda: (_alone(_marked(each, policy), policy) for each in talk.shorter()),
        keep_end=policy.supervise != "all",
    )


def _alone(marked: _Marked, policy: Policy) -> Encoded:
    return _conversation(marked, _by_pieces([marked], marked.talk.tokenizer)[0], policy)


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
    written = Talk(template, with_system(messages, system), tools, tokenizer).written(prompt=True)
    return tokenizer.encode(written.text, written.cited)[0]


def stop_tokens(template: Template, tokenizer: TextTokenizer) -> list[int]:
    """Tokens that end an answer: the tokenizer's end token, the template's stops, what it writes after an answer."""
    written = [_end_string(template, probe, tokenizer) for probe in (_PROBE, _CALLING_PROBE)]
    strings = [tokenizer.specials.get("eos_token", ""), *template.stop, *written]
    ids = (tokenizer.backend.token_to_id(string) for string in strings if string)
    return list(dict.fromkeys(each for each in ids if each is not None))


def _plain_text(words: str, tokenizer: TextTokenizer) -> Encoded:
    text = tokenizer.start_string + words + tokenizer.specials.get("eos_token", "")
    ids, offsets = tokenizer.encode(text)
    whole = [(0, len(text))]
    return Encoded(
        text, ids, offsets, [(0, len(ids))], whole, len(ids), len(ids), parts=[(0, len(text), "text", "text")]
    )


def _conversation(marked: _Marked, cut: Cut | None, policy: Policy) -> Encoded:
    """The conversation whole. cut: its tokens by pieces, where they could be had so."""
    talk, spans, learned = marked
    text, _, cited = talk.whole
    tokenizer = talk.tokenizer
    if cut is not None:
        ids, at, offsets = cut
    else:
        at = {}
        ids, offsets = tokenizer.encode(text, cited)
        everywhere = tokenizer.pieces is not None or _prompt_ends_otherwise(talk.template, tokenizer)
        if breaks := marked.borders if everywhere else [each for each in marked.borders if _within(offsets, each)]:
            ids, offsets = tokenizer.encode(text, cited, breaks)
    ranges = [_range(offsets, span, at) for span in learned]
    return Encoded(
        text,
        ids,
        offsets,
        [(first, last) for first, last in ranges if first < last],
        [span for _, span in spans],
        len(ids),
        sum(last - first for first, last in (_range(offsets, span, at) for _, span in spans)),
        escaped=len(cited),
        parts=partial(parts_of, talk, spans, policy),
    )


@lru_cache(maxsize=64)
def _prompt_ends_otherwise(template: Template, tokenizer: TextTokenizer) -> bool:
    """Whether the end of a prompt has other tokens as soon as an answer follows: GPT-2 splits two line ends there."""
    try:
        talk = Talk(template, _PROBE, "", tokenizer)
        begin, _ = answers(talk, only_last=True)[-1]
    except Unfinished:
        raise
    except TemplateError:
        return False
    alone, _ = tokenizer.encode(talk.whole.text[:begin])
    ids, offsets = tokenizer.encode(talk.whole.text)
    return not _within(offsets, begin) and ids[: len(alone)] != alone


def _range(offsets: Sequence[Span], span: Span, at: Mapping[int, int]) -> Span:
    """The tokens that begin in a span. at: the number of tokens before some places, as far as it is known."""
    first, last = (at.get(place, -1) for place in span)
    if first < 0:
        first = bisect_left(offsets, span[0], key=itemgetter(0))
    if last < 0:
        last = bisect_left(offsets, span[1], lo=first, key=itemgetter(0))
    return first, last


def _within(offsets: Sequence[Span], place: int) -> bool:
    """Whether a place lies within a token."""
    after = bisect_left(offsets, place, key=itemgetter(0))
    return after > 0 and offsets[after - 1][1] > place


_PROBE = (Message("user", "Hello"), Message("assistant", "World"))
_CALL = Message("assistant", "", (ToolCall("look_up", "{}"),))
_CALLING_PROBE = (_PROBE[0], _CALL, Message("tool", "Found"), _PROBE[1])


def _end_string(template: Template, probe: tuple[Message, ...], tokenizer: TextTokenizer) -> str:
    """The special token that a template writes after the first answer of a probe; empty if there is none."""
    try:
        if lacks(template, probe, "", tokenizer.specials):
            return ""  # before the fault is told with a template that has the place, for which all of them are read
        talk = Talk(template, probe, "", tokenizer)
        answer = talk.whole.text[slice(*answers(talk)[0])]
    except Unfinished:
        raise
    except TemplateError:
        return ""
    return next((end for end in tokenizer.special_strings if answer.endswith(end)), "")
