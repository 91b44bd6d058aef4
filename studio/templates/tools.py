"""Whether a template has a place for tools (descriptions, calls, results) and for thoughts apart from the answer.

A template that has none would drop them without a word, and the model would learn answers out of nothing. Not here:
templates that are written for tools (studio.templates.library has what is shipped).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Literal

from studio.data.example import Message, ToolCall
from studio.errors import TemplateError
from studio.templates.confined import Unfinished
from studio.templates.library import AUTO
from studio.templates.rendering import Template, render_marked
from studio.templates.tokenizer import TextTokenizer

Place = Literal["tool descriptions", "tool calls", "tool results"]

_CALL, _ARGUMENT, _RESULT, _TOOL = "probe_call", "probe argument", "probe result", "probe_tool"
_THOUGHT = "probe thought"
_ASKED = (Message("user", "Hello"),)
_ANSWER = Message("assistant", "World")
_CALLED = (*_ASKED, Message("assistant", "", (ToolCall(_CALL, f'{{"word": "{_ARGUMENT}"}}'),)))
_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": _TOOL,
            "description": "A probe.",
            "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
        },
    }
]


def check(template: Template, messages: Sequence[Message], tools: str, tokenizer: TextTokenizer) -> None:
    """Raises: TemplateError: a conversation holds tools that the template has no place for, and which one has."""
    if lacking := lacks(template, messages, tools, tokenizer.specials):
        wanted, specials = set(needed(messages, tools)), _frozen(tokenizer.specials)
        fit = next((each.name for each in _known(tokenizer) if wanted <= places(each, specials)), "")
        hint = (
            f"Choose one that has, such as {fit}."
            if fit
            else "Choose a model whose own template has, with template.name auto, or remove the tools from the rows."
        )
        raise TemplateError(f"Template '{template.name}' has no place for {' and '.join(lacking)}. {hint}")


def lacks(template: Template, messages: Sequence[Message], tools: str, specials: Mapping[str, str]) -> list[Place]:
    """What a conversation needs a place for that the template does not have."""
    wanted = needed(messages, tools)
    return [place for place in wanted if place not in places(template, _frozen(specials))]


@lru_cache(maxsize=128)
def takes_thoughts(template: Template, specials: tuple[tuple[str, str], ...]) -> bool:
    """Whether the template writes the thought of the last answer where the data keeps it apart from the content."""
    return _THOUGHT in _written(template, (*_ASKED, replace(_ANSWER, thought=_THOUGHT)), specials)


def with_thoughts(
    template: Template, messages: tuple[Message, ...], specials: Mapping[str, str]
) -> tuple[Message, ...]:
    """The messages; thoughts that the template has no place for begin the answer, as models that think write them."""
    if not any(message.thought for message in messages) or takes_thoughts(template, _frozen(specials)):
        return messages
    return tuple(
        replace(message, content=f"<think>\n{message.thought}\n</think>\n\n{message.content}", thought="")
        if message.thought
        else message
        for message in messages
    )


def _known(tokenizer: TextTokenizer) -> Iterator[Template]:
    """Templates that this tokenizer can write, the model's own first."""
    if tokenizer.chat_template:
        yield Template(AUTO, tokenizer.chat_template)
    yield from tokenizer.fitting


def needed(messages: Sequence[Message], tools: str) -> list[Place]:
    """What a conversation needs a place for."""
    found: list[Place] = ["tool descriptions"] if tools and tools != "[]" else []
    if any(message.tool_calls for message in messages):
        found.append("tool calls")
    if any(message.role == "tool" for message in messages):
        found.append("tool results")
    return found


@lru_cache(maxsize=128)
def places(template: Template, specials: tuple[tuple[str, str], ...]) -> frozenset[Place]:
    """What the template has a place for: found by writing a small conversation with each."""
    found: set[Place] = set()
    if _TOOL in _written(template, (*_ASKED, _ANSWER), specials):
        found.add("tool descriptions")
    told = (*_CALLED, Message("tool", _RESULT), _ANSWER)
    text = _written(template, told, specials)
    if _CALL in text and _ARGUMENT in text:
        found.add("tool calls")
    # some templates take every role that they do not know for the assistant's
    mistaken = (*_CALLED, Message("assistant", _RESULT), _ANSWER)
    if _RESULT in text and text != _written(template, mistaken, specials):
        found.add("tool results")
    return frozenset(found)


def _written(template: Template, messages: Sequence[Message], specials: tuple[tuple[str, str], ...]) -> str:
    try:
        return render_marked(template, messages, dict(specials), tools=_TOOLS)
    except Unfinished:
        raise
    except TemplateError:
        return ""


def _frozen(specials: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(specials.items()))
