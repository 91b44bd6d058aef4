"""Render a chat template: Jinja as Hugging Face templates expect it, in a sandbox, with bounds.

Not here: where templates come from (library), and what of the text is learned (encoding).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

import jinja2
import jinja2.ext
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from studio.data.example import Message
from studio.errors import TemplateError

MAX_CHARACTERS = 16 * 1024**2
"""Of one rendered conversation: a template that writes without end is stopped here."""

MAX_REPEATED = 100_000
"""Items of a text or list that a template multiplies."""

HEADER = re.compile(r"\s*\{#-?(.*?)-?#\}\s*", re.DOTALL)
MARK = re.compile(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})")


Origin = Literal["shipped", "own", "model"]


@dataclass(frozen=True)
class Template:
    """A chat template.

    stop: strings that end an answer, beside the tokenizer's end token. system: what it writes where a conversation has
    no system text. also: names under which other tools know it. source: who published it. deviates: where it differs
    from that on purpose, and why. origin: a file in templates/, one that somebody wrote here, or a model's own.
    """

    name: str
    text: str
    title: str = ""
    families: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    source: str = ""
    system: str = ""
    also: tuple[str, ...] = ()
    deviates: str = ""
    origin: Origin = "model"

    @property
    def portable(self) -> str:
        """The text without our header and marks, for other programs: the same output from any chat-template engine."""
        body = HEADER.sub("", self.text, count=1) if self.title else self.text
        return MARK.sub(lambda m: f"{m[1]}{'endif' if m[2] else 'if true'}{m[3]}", body)


class _Generation(jinja2.ext.Extension):
    """{% generation %}: what the assistant writes. Around it go the marks that the context names, if it names any."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_marked", [jinja2.nodes.ContextReference()])
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _marked(self, context: Any, caller: Any) -> str:
        opening, closing = context.get("generation_marks", ("", ""))
        return f"{opening}{caller()}{closing}"


class _Sandbox(ImmutableSandboxedEnvironment):
    """A model's template is a stranger's program: no reach into Python, no numbers or texts that fill the memory."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise jinja2.exceptions.SecurityError("powers are not allowed")
        for many, times in ((left, right), (right, left)):
            if isinstance(many, Sized) and isinstance(times, int) and len(many) * times > MAX_REPEATED:
                raise jinja2.exceptions.SecurityError(f"more than {MAX_REPEATED:,} repeated items are not allowed")
        return super().call_binop(context, operator, left, right)


class _Namespace(jinja2.utils.Namespace):
    """namespace() for templates, without a way to names that belong to Python."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"the name {name} is not allowed in a namespace")
        super().__setitem__(name, value)


@lru_cache(maxsize=1)
def environment() -> ImmutableSandboxedEnvironment:
    """Jinja as chat templates expect it: HF's settings, filters and functions."""
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.globals.update(
        raise_exception=_raise, strftime_now=_now, namespace=lambda **values: _Namespace(values), dict=_dict
    )
    return environment


def _tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys=False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _now(format: str) -> str:
    return datetime.now().strftime(format)


def _dict(**values: Any) -> dict[str, Any]:
    return values


@lru_cache(maxsize=64)
def compiled(name: str, text: str) -> jinja2.Template:
    try:
        return environment().from_string(text)
    except jinja2.TemplateSyntaxError as error:
        column = _column(text, error)
        raise TemplateError(f"Template '{name}', line {error.lineno}{column}: {error.message}") from error


def _column(text: str, error: jinja2.TemplateSyntaxError) -> str:
    """Jinja tells only the line. The column is that of the word it complains of, or of the line's first tag."""
    line = text.splitlines()[error.lineno - 1] if 0 < error.lineno <= len(text.splitlines()) else ""
    words = re.findall(r"'([^']+)'", error.message or "")
    places = [line.find(word) for word in words if word in line] or [
        line.find(tag) for tag in ("{%", "{{") if tag in line
    ]
    return f", column {min(places) + 1}" if places else ", column 1"


def render(
    template: Template,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = False,
    system: str | None = None,
    specials: Mapping[str, str] | None = None,
    tools: str = "",
) -> str:
    """The conversation as text.

    Args: system: for a conversation that has no system turn. specials: bos_token, eos_token and so on. tools: a JSON
        list of descriptions.
    Raises: TemplateError: with the template's own words, if it has some.
    """
    given = with_system(messages, system)
    return render_marked(template, given, specials or {}, prompt=add_generation_prompt, tools=parsed_tools(tools))


def with_system(messages: Sequence[Message], system: str | None) -> tuple[Message, ...]:
    if not system or (messages and messages[0].role == "system"):
        return tuple(messages)
    return (Message("system", system), *messages)


def parsed_tools(tools: str) -> list[Any] | None:
    """What a template finds under `tools`."""
    return (json.loads(tools) or None) if tools else None


def as_values(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """What a template finds under `messages`. A call without an id gets one, and its result the call's id and name."""
    waiting: list[dict[str, Any]] = []
    values: list[dict[str, Any]] = []
    called = 0
    for message in messages:
        if message.role != "tool" and not message.tool_calls and not message.thought:
            values.append({"role": message.role, "content": message.content})
            continue
        value = message.as_dict()
        for call in value.get("tool_calls", ()):
            called += 1
            call.setdefault("id", f"call{called:05d}")  # nine letters and digits, as Mistral's templates demand
        waiting += value.get("tool_calls", ())
        if message.role == "tool" and waiting:
            known = (each for each in waiting if each["id"] == message.call_id)
            answered = next(known, None) or waiting[0]
            waiting.remove(answered)
            value = {"name": answered["function"]["name"], "tool_call_id": answered["id"]} | value
        values.append(value)
    return values


def render_marked(
    template: Template,
    messages: Sequence[Message] | Sequence[Mapping[str, Any]],
    specials: Mapping[str, str],
    *,
    prompt: bool = False,
    marks: tuple[str, str] = ("", ""),
    tools: list[Any] | None = None,
) -> str:
    """messages: or what as_values makes of them. marks: characters around what the assistant writes."""
    values = as_values(messages) if messages and isinstance(messages[0], Message) else messages
    pieces, length = [], 0
    try:
        for piece in compiled(template.name, template.text).generate(
            messages=values,
            add_generation_prompt=prompt,
            tools=tools,
            documents=None,
            generation_marks=marks,
            **specials,
        ):
            length += len(piece)
            if length > MAX_CHARACTERS:
                raise TemplateError(f"Template '{template.name}' wrote more than {MAX_CHARACTERS:,} characters.")
            pieces.append(piece)
    except jinja2.exceptions.UndefinedError as error:
        raise TemplateError(
            f"Template '{template.name}': {error.message}. Where that is a special token, the tokenizer lacks it: "
            "choose a template that does not need it."
        ) from error
    except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
        raise TemplateError(f"Template '{template.name}' cannot write this conversation: {error}.") from error
    return "".join(pieces)
