"""Which pieces of a conversation are learned, whose they are, and why: the policy of a run, applied to one row.

Not here: where answers stand in a text (answers), and tokens (encoding).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from studio.errors import TemplateError
from studio.specs import DataSpec, TemplateSpec
from studio.templates.answers import answers
from studio.templates.cutting import Truncation
from studio.templates.quoting import Span
from studio.templates.talk import THOUGHT, Talk

Supervise = Literal["assistant", "last", "all"]
Role = Literal["system", "user", "assistant", "tool", "template", "text"]
Reason = Literal["answer", "end", "text", "template", "asked", "result", "history", "excluded", "thought"]
"""Why a token is learned or not.

learned: answer, end (the token that ends an answer), text (all of the text is learned). not learned: template (written
by the template), asked (system or user), result (of a tool), history (an earlier answer), excluded (the row says so),
thought (of the assistant, where thoughts are not learned).
"""


@dataclass(frozen=True)
class Policy:
    """What of a conversation is learned, and how much of it is kept.

    supervise: every answer, the last one, or all of the text. A turn's own `train` goes before it; results of tools are
    never learned. learn_thoughts: also what stands between <think> and </think>. system: for conversations that have no
    system text. max_length: tokens that are kept; None: all. truncation: what goes where there are more.
    """

    supervise: Supervise = "assistant"
    learn_thoughts: bool = True
    system: str | None = None
    max_length: int | None = None
    truncation: Truncation = "cut_answer"

    @classmethod
    def of(cls, template: TemplateSpec, data: DataSpec) -> Policy:
        """That of a training run."""
        return cls(template.supervise, template.learn_thoughts, template.system, data.max_length, data.truncation)


class Part(NamedTuple):
    """A piece of a text, [start, end) in characters, whose it is, and why it is learned or not."""

    start: int
    end: int
    role: Role
    reason: Reason


def answers_of(talk: Talk, policy: Policy) -> list[tuple[int, Span]]:
    """(turn, where it stands) of the answers that must be known."""
    turns = talk.turns
    only_last = policy.supervise == "last" and not any(talk.messages[turn].train for turn in turns[:-1])
    if policy.supervise != "all":
        return list(zip(turns[-1:] if only_last else turns, answers(talk, only_last=only_last), strict=True))
    try:
        return list(zip(turns, answers(talk), strict=True))
    except TemplateError:
        unlearned = not policy.learn_thoughts and "</think>" in talk.whole.text
        if unlearned or any(talk.messages[turn].train is False for turn in turns):
            raise
        # all of the text is learned, so the answers are only wanted for show
        return []


def learned(talk: Talk, spans: Sequence[tuple[int, Span]], policy: Policy) -> list[Span]:
    """What carries loss, ascending. spans: as answers_of finds them."""
    found = _all_but(talk, spans, policy) if policy.supervise == "all" else _of_answers(talk, spans, policy)
    return [(begin, end) for begin, end in found if begin < end]


def _of_answers(talk: Talk, spans: Sequence[tuple[int, Span]], policy: Policy) -> Iterator[Span]:
    for turn, (begin, end) in spans:
        if _why(talk, turn, policy) != "answer":
            continue
        for start, stop in [] if policy.learn_thoughts else _thoughts(talk, (begin, end)):
            yield begin, start
            begin = stop
        yield begin, end


def _thoughts(talk: Talk, span: Span) -> list[Span]:
    """Where in an answer the assistant thinks."""
    begin, end = span
    return [(begin + found.start(), begin + found.end()) for found in THOUGHT.finditer(talk.whole.text[begin:end])]


def _all_but(talk: Talk, spans: Sequence[tuple[int, Span]], policy: Policy) -> Iterator[Span]:
    """All of the text but results of tools, answers that the row excludes, and thoughts that are not to be learned."""
    out = [span for turn, span in spans if talk.messages[turn].train is False]
    if not policy.learn_thoughts:
        out += [thought for _, span in spans for thought in _thoughts(talk, span)]
    if any(message.role == "tool" for message in talk.messages):
        out += [span for turn, span in talk.contents if talk.messages[turn].role == "tool"]
    place = 0
    for begin, end in sorted(out):
        yield place, begin
        place = max(place, end)
    yield place, len(talk.whole.text)


def _why(talk: Talk, turn: int, policy: Policy) -> Literal["answer", "history", "excluded"]:
    wanted = talk.messages[turn].train
    if wanted is not None:
        return "answer" if wanted else "excluded"
    return "history" if policy.supervise == "last" and turn != talk.turns[-1] else "answer"


def parts_of(talk: Talk, spans: Sequence[tuple[int, Span]], policy: Policy) -> Iterator[Part]:
    """Who wrote which piece of the text, and why it is learned or not; what is in none was written by the template."""
    all_learned = policy.supervise == "all"
    known = dict(spans)
    for turn, (begin, end) in talk.contents:
        role = talk.messages[turn].role
        if role != "assistant":
            reason: Reason = "result" if role == "tool" else "text" if all_learned else "asked"
            yield Part(begin, end, role, reason)
        elif turn not in known:
            yield Part(begin, end, role, "text" if all_learned else "history")
    for turn, span in spans:
        yield from _answer_parts(talk, span, _why(talk, turn, policy), policy)


def _answer_parts(talk: Talk, span: Span, why: Reason, policy: Policy) -> Iterator[Part]:
    begin, end = span
    said = talk.whole.text[begin:end]
    ending = next((each for each in (*talk.template.stop, *talk.tokenizer.special_strings) if said.endswith(each)), "")
    thoughts = [] if policy.learn_thoughts or why != "answer" else list(THOUGHT.finditer(said))
    places = sorted({0, len(said) - len(ending), len(said), *(place for found in thoughts for place in found.span())})
    for start, stop in pairwise(places):
        if any(found.start() <= start < found.end() for found in thoughts):
            reason: Reason = "thought"
        else:
            reason = "end" if ending and stop == len(said) and why == "answer" else why
        yield Part(begin + start, begin + stop, "assistant", reason)
