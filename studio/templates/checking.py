"""What is wrong with a template before it is used: by itself, and with a tokenizer.

It is found by having the template write small conversations whose words stand nowhere else. Not here: the header
(studio.templates.library), and each single row, which is proven when it is encoded (studio.templates.answers).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from studio.data.example import Message
from studio.errors import TemplateError, unknown
from studio.templates import tools, twins
from studio.templates.answers import NoEnd, answers
from studio.templates.confined import Unfinished
from studio.templates.library import CONTEXT, parse
from studio.templates.quoting import Span, unmarked, unused_marks
from studio.templates.rendering import MARK, Refusal, Template, render_marked, variables
from studio.templates.talk import Talk
from studio.templates.tokenizer import TextTokenizer

Level = Literal["error", "warning"]
Kind = Literal[
    "syntax", "unfinished", "wrong", "variable", "refuses", "drops", "tools", "changes", "prompt", "no_end",
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

    A draft is Template(name, text, origin="own"): its header is read, too.
    Never raises for what a template does. One that never ends is tried once, for confined.LIMIT_S.
    """
    found: list[Finding] = []
    try:
        found.extend(_findings(template, tokenizer))
    except Unfinished as error:
        found.append(Finding("unfinished", "error", str(error)))
    return sorted(found, key=lambda each: each.level)


def concerns(template: Template, tokenizer: TextTokenizer) -> list[str]:
    """What does not fit between a template and a tokenizer, in sentences to show beside the choice."""
    return [each.text for each in _stops(template, tokenizer)]


def twin(template: Template, tokenizer: TextTokenizer) -> Template | None:
    """The shipped template with marks that writes the same text with this tokenizer's special tokens, if there is."""
    return twins.twin(template, tokenizer.specials)


# --- Probes ---

_SYSTEM = Message("system", "Systemprobe")
_ASKED, _ANSWERED = Message("user", "Firstquestion"), Message("assistant", "Firstanswer")
_NEXT, _LAST = Message("user", "Secondquestion"), Message("assistant", "Secondanswer")
_ONE = (_ASKED, _ANSWERED)
_TWO = (*_ONE, _NEXT, _LAST)
_NAMED = {
    _SYSTEM.content: "the system text",
    _ASKED.content: "the first question",
    _ANSWERED.content: "the first answer",
    _NEXT.content: "the second question",
    _LAST.content: "the second answer",
}
_USUAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
"""Special tokens of nobody in particular."""

_LOOKS_SPECIAL = re.compile(r"<[|｜][^<>|｜\s]{1,40}[|｜]>|<(?:start|end)_of_\w{1,20}>")


@dataclass(frozen=True)
class _Probe:
    """A template with the special tokens that it finds."""

    template: Template
    specials: Mapping[str, str]

    @property
    def name(self) -> str:
        return f"Template '{self.template.name}'"

    def text(self, *messages: Message, prompt: bool = False) -> str:
        """Raises: TemplateError."""
        return render_marked(self.template, messages, self.specials, prompt=prompt)

    def refusal(self, *messages: Message) -> str:
        """Why it does not write them, as a sentence; empty where it does."""
        try:
            self.text(*messages)
        except Unfinished:
            raise
        except TemplateError as error:
            return str(error)
        return ""

    @cached_property
    def answer(self) -> Span:
        """Where the only answer of a conversation stands: as the template marks it, else its words."""
        if MARK.search(self.template.text):
            marks = unused_marks("")
            text = render_marked(self.template, _ONE, self.specials, marks=marks[:2])
            if spans := unmarked(text, marks)[1]:
                return spans[-1]
        begin = self.text(*_ONE).find(_ANSWERED.content)
        return begin, begin + len(_ANSWERED.content)


def _findings(template: Template, tokenizer: TextTokenizer | None) -> Iterator[Finding]:
    try:
        if template.origin == "own":
            template = parse(template.name, template.text, "own")
        names = variables(template)
    except Unfinished:
        raise
    except TemplateError as error:
        yield Finding("syntax", "error", str(error))
        return
    probe = _Probe(template, tokenizer.specials if tokenizer else _USUAL)
    yield from _variables(probe, names)
    try:
        one = probe.text(*_ONE)
    except Unfinished:
        raise
    except TemplateError as error:
        said = f"{error} It was given one question and its answer, so it can write nothing."
        yield Finding("refuses" if isinstance(error, Refusal) else "wrong", "error", said)
        return
    yield from _conversations(probe, one)
    yield from _orders(probe)
    if _ANSWERED.content in one:
        yield from _prompts(probe, one)
    yield from _ends(probe, one, tokenizer)
    yield from _tools(probe)
    if tokenizer:
        yield from _stops(template, tokenizer)
        yield from _strange(probe, one, tokenizer)


def _variables(probe: _Probe, names: Sequence[str]) -> Iterator[Finding]:
    """Those that nothing provides. A model's own template may know of more, and does without."""
    for name in names if probe.template.origin == "own" else ():
        if name not in CONTEXT:
            hint = unknown("variable", name, CONTEXT)
            yield Finding("variable", "warning", f"{probe.name} reads '{name}', which is empty here. {hint}")


def _conversations(probe: _Probe, one: str) -> Iterator[Finding]:
    """What it drops of a conversation, does not take, or writes anew once more turns follow."""
    refused = probe.refusal(*_TWO)
    if refused:
        yield Finding("refuses", "warning", f"{refused} Rows of several turns cannot be learned with it.")
    text = one if refused else probe.text(*_TWO)
    gone = [_NAMED[each.content] for each in (_ONE if refused else _TWO) if each.content not in text]
    refused_system = probe.refusal(_SYSTEM, *_ONE)
    if refused_system:
        yield Finding("refuses", "warning", f"{refused_system} Rows with a system text cannot be learned with it.")
    elif _SYSTEM.content not in probe.text(_SYSTEM, *_ONE):
        gone.insert(0, _NAMED[_SYSTEM.content])
    if gone:
        said = f"{probe.name} does not write {_listed(gone)} of a conversation: what stands there is lost without a"
        yield Finding("drops", "warning", f"{said} word. Add it to the template, or choose another one.")
    if not gone and not text.startswith(_until_ended(probe, one, text)):
        before, after = _apart(one, text)
        yield Finding(
            "changes",
            "warning",
            f"{probe.name} writes a question and its answer differently once others follow: {before} becomes {after}. "
            "In a chat of several turns the model then reads something else than it has learned. Write each turn "
            "alike, or train on rows of one turn.",
        )


def _until_ended(probe: _Probe, one: str, text: str) -> str:
    """A conversation up to the end of its answer, if that is alike: some write one more token after all."""
    until = one.index(_ANSWERED.content) + len(_ANSWERED.content)
    same = next((i for i, (a, b) in enumerate(zip(one, text, strict=False)) if a != b), len(one))
    alike = one[until:same]
    ended = _LOOKS_SPECIAL.search(alike) or any(special in alike for special in probe.specials.values())
    return one[:same] if ended else one.rstrip()


def _orders(probe: _Probe) -> Iterator[Finding]:
    orders = {
        "two questions one after the other": (_ASKED, _NEXT, _ANSWERED),
        "a conversation that begins with an answer": (_ANSWERED, _ASKED, _LAST),
    }
    refused = {order: said for order, turns in orders.items() if (said := probe.refusal(*turns))}
    if refused:
        said = f"{next(iter(refused.values()))} So it is with {' and with '.join(refused)}: such rows cannot be learned"
        yield Finding("refuses", "warning", f"{said} with it.")


def _prompts(probe: _Probe, one: str) -> Iterator[Finding]:
    """Whether what precedes an answer in a chat is what preceded it in training."""
    try:
        asked, prompt = probe.text(_ASKED), probe.text(_ASKED, prompt=True)
    except Unfinished:
        raise
    except TemplateError as error:
        yield Finding("prompt", "error", f"{error} It was given a question alone, so it cannot be used in a chat.")
        return
    begin = probe.answer[0]
    between = one[len(prompt) : begin]
    if prompt == asked and one.startswith(prompt) and between.strip():
        yield Finding(
            "prompt",
            "warning",
            f"{probe.name} does not write {between!r} before the model is to answer, but does so in training. End it "
            "with {% if add_generation_prompt %}{{ " + repr(between) + " }}{% endif %}.",
        )
    elif not one.startswith(prompt):
        before, after = _apart(prompt, one)
        yield Finding(
            "prompt",
            "warning",
            f"{probe.name} writes {before} before the model is to answer, but {after} in training. Make both alike: "
            "the model answers best after what it has learned to answer after.",
        )
    elif between and MARK.search(probe.template.text):
        yield Finding(
            "prompt",
            "warning",
            f"{probe.name} writes {between!r} before an answer in training, which is neither in its generation prompt "
            "nor learned. Write it in both, or move {% generation %} before it.",
        )


def _ends(probe: _Probe, one: str, tokenizer: TextTokenizer | None) -> Iterator[Finding]:
    """Whether answers can be found, and end."""
    if tokenizer is None:
        _, found, after = one.rpartition(_ANSWERED.content)
        if not found and not MARK.search(probe.template.text):
            yield Finding(
                "no_answers",
                "error",
                f"{probe.name} does not write an answer as it is and does not mark it, so it cannot be found. Put "
                "{% generation %} and {% endgeneration %} around it, with its end token.",
            )
        if found and not after.strip() and not _closed_by_next(probe):
            yield Finding(
                "no_end",
                "error",
                f"{probe.name} writes no end token after an answer, so the model would not learn to stop. Write "
                "{{ eos_token }} after it.",
            )
        return
    for turns, level, where in ((_ONE, "error", ""), (_TWO, "warning", "In conversations of several turns: ")):
        try:
            answers(Talk(probe.template, turns, "", tokenizer))
        except Unfinished:
            raise
        except NoEnd as error:
            yield Finding("no_end", level, where + str(error))
            return
        except TemplateError as error:
            if not probe.refusal(*turns):
                yield Finding("no_answers", level, where + str(error))
            return


def _closed_by_next(probe: _Probe) -> bool:
    """Whether the next turn begins with what looks like a special token, at which a model can stop."""
    if probe.refusal(*_TWO):
        return False
    after = probe.text(*_TWO).partition(_ANSWERED.content)[2].lstrip()
    return after.startswith(probe.template.stop) or _LOOKS_SPECIAL.match(after) is not None


def _tools(probe: _Probe) -> Iterator[Finding]:
    places = tools.places(probe.template, tuple(sorted(probe.specials.items())))
    lacking = [each for each in ("tool descriptions", "tool calls", "tool results") if each not in places]
    if lacking:
        said = f"{probe.name} has no place for {_listed(lacking)}: rows that hold some are refused."
        yield Finding("tools", "warning", f"{said} For such rows choose another one.")


def _stops(template: Template, tokenizer: TextTokenizer) -> Iterator[Finding]:
    for stop in template.stop:
        if tokenizer.backend.token_to_id(stop) is None:
            yield Finding(
                "stop",
                "warning",
                f"This model has no token {stop}: it is written as {len(tokenizer.ids(stop))} pieces, and answers may "
                "not stop there. A template that ends with the model's own end token, such as default or alpaca, fits "
                "better.",
            )


def _strange(probe: _Probe, one: str, tokenizer: TextTokenizer) -> Iterator[Finding]:
    """What looks like a special token and is none of this model's."""
    written = dict.fromkeys(_LOOKS_SPECIAL.findall(one))
    strange = [
        each for each in written if tokenizer.backend.token_to_id(each) is None and each not in probe.template.stop
    ]
    if strange:
        yield Finding(
            "specials",
            "warning",
            f"{probe.name} writes {_listed(strange)}, which this model does not know as one token, as the models of "
            "another family do. Choose the model's own template, or one that is plain text, such as default or alpaca.",
        )


# --- Words ---


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _apart(one: str, other: str) -> tuple[str, str]:
    """A few characters of each of two texts around the place from which on they differ, as literals."""
    place = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    begin = max(0, place - 12)
    return repr(one[begin : place + 24]), repr(other[begin : place + 24])
