"""The shipped template that writes the same text as another one, and shows where answers are.

Models bring templates without generation marks; most of them are those of a family that is shipped with marks. Not
here: how answers are found without any (studio.templates.answers).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from studio.data.example import Message, ToolCall
from studio.errors import TemplateError
from studio.templates import library
from studio.templates.confined import Unfinished
from studio.templates.rendering import MARK, Template, render_marked

_ASKED, _ANSWERED = Message("user", "A first question?"), Message("assistant", "A first answer.")
_TALK = (_ASKED, _ANSWERED, Message("user", "And another one?"), Message("assistant", "The last answer."))
_SYSTEM = Message("system", "How to answer.")
_PROBES = (
    (_TALK[:2], False),
    (_TALK, False),
    ((_SYSTEM, *_TALK), False),
    (_TALK[:1], True),
    (_TALK[:3], True),
    ((_SYSTEM, _ASKED), True),
)
"""(turns, whether the text ends where the next answer begins)"""
_TOOL = {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}}
_FINER = (
    ((_ASKED, Message("assistant", "<think>\nWell.\n</think>\n\nSo."), *_TALK[2:]), False),
    (
        (_ASKED, Message("assistant", "", (ToolCall("look", '{"at": "it"}'),)), Message("tool", "Seen."), _ANSWERED),
        False,
    ),
)
"""What templates that are alike in all that may still write differently."""


def twin(template: Template, specials: Mapping[str, str]) -> Template | None:
    """The shipped template with marks that writes the same, with these special tokens, as far as it was tried.

    That is: one turn, several, with a system text, and what precedes an answer. None: there is no such template.
    """
    return _twin(template, tuple(sorted(specials.items())))


def near(template: Template, specials: Mapping[str, str]) -> Template | None:
    """The shipped template with marks that writes the same where there is no system text. None: there is none."""
    return _twin(template, tuple(sorted(specials.items())), without_system=True)


@lru_cache(maxsize=64)
def _twin(
    template: Template, specials: tuple[tuple[str, str], ...], *, without_system: bool = False
) -> Template | None:
    known = dict(specials)
    probes = [probe for probe in _PROBES if not without_system or probe[0][0] is not _SYSTEM]
    try:
        texts = [_written(template, probe, known) for probe in probes]
    except Unfinished:
        return None
    if not any(texts):
        return None
    marked = (each for each in library.shipped() if each.text != template.text and MARK.search(each.text))
    # the first probe tells nearly all of them apart
    first = (each for each in marked if _written(each, probes[0], known) == texts[0])
    alike = [each for each in first if [_written(each, probe, known) for probe in probes] == texts]
    finer = [_written(template, probe, known) for probe in _FINER] if len(alike) > 1 else []

    def same(each: Template) -> int:
        return sum(_written(each, probe, known) == text for probe, text in zip(_FINER, finer, strict=False))

    return max(alike, key=same, default=None)


def _written(template: Template, probe: tuple[tuple[Message, ...], bool], specials: Mapping[str, str]) -> str:
    """What it writes; empty where it refuses."""
    tools = [{"type": "function", "function": _TOOL}] if any(each.tool_calls for each in probe[0]) else None
    try:
        return render_marked(template, probe[0], specials, prompt=probe[1], tools=tools)
    except Unfinished:
        raise
    except TemplateError:
        return ""
