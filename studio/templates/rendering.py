"""Write a conversation by a template: here, or for a stranger's template in a process with limits.

Not here: Jinja and its sandbox (studio.sandbox), where templates come from (library), and what of the text is learned
(encoding).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from studio.data.example import Message
from studio.errors import TemplateError
from studio.sandbox import jinja, limits
from studio.templates import confined

MAX_CHARACTERS = 16 * 1024**2
"""Of one rendered conversation: a template that writes without end is stopped here."""

HEADER = re.compile(r"\s*\{#-?(.*?)-?#\}\s*", re.DOTALL)
MARK = re.compile(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})")
_QUOTED = re.compile(r"[\\']")
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

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
        # of others a comment stays, because white space around it may be written
        body = HEADER.sub("", self.text, count=1) if self.origin == "shipped" else self.text
        return MARK.sub(lambda m: f"{m[1]}{'endif' if m[2] else 'if true'}{m[3]}", body)

    def portable_with(self, system: str | None) -> str:
        """The portable text, which also adds a system text to a conversation that has none: that of a training run."""
        if not system:
            return self.portable
        turn = f"{{'role': 'system', 'content': {_literal(system)}}}"
        lacking = "not messages or messages[0]['role'] != 'system'"
        # the line break belongs to the tag, so what follows stands at the beginning of a line as it did before
        return f"{{% if {lacking} %}}{{% set messages = [{turn}] + messages %}}{{% endif %}}\n{self.portable}"


class Refusal(TemplateError):
    """A template does not take a conversation, and says so in its own words."""


class Undefined(TemplateError):
    """A template reads a field or a variable that is not there."""


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


def _literal(text: str) -> str:
    """A text as Jinja writes it: in single quotes, which nothing in it can end."""
    escaped = _QUOTED.sub(r"\\\g<0>", text)
    return f"'{_UNSEEN.sub(lambda found: found[0].encode('unicode_escape').decode(), escaped)}'"


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
        if message.thought:
            value["thinking"] = message.thought  # as the templates of gpt-oss call it
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
    context = {
        "messages": values,
        "add_generation_prompt": prompt,
        "tools": tools,
        "documents": None,
        **dict(zip(jinja.MARKS, marks, strict=True)),
        **specials,
    }
    found = _answer(template, {"text": template.text, "values": context, "most": MAX_CHARACTERS})
    if "text" not in found:
        raise _fault(template, found)
    return found["text"]


def variables(template: Template) -> list[str]:
    """Names that the template reads from outside, sorted; functions that every template has are none of them.

    Raises: TemplateError: it is not valid Jinja; with line and column.
    """
    found = _answer(template, {"text": template.text})
    if "names" not in found:
        raise _fault(template, found)
    return found["names"]


def _answer(template: Template, request: dict[str, Any]) -> dict[str, Any]:
    """What a template answers. Those of strangers do it in another process, if this one has no limits itself."""
    if template.origin == "shipped" or limits.confined():
        return jinja.answer(request)
    return confined.shared.ask(template.name, request)


def _fault(template: Template, found: Mapping[str, Any]) -> TemplateError:
    name, said = f"Template '{template.name}'", found["say"].rstrip(".")
    match found["fault"]:
        case "syntax":
            return TemplateError(f"{name}, line {found['line']}{_column(template.text, found['line'], said)}: {said}")
        case "undefined":
            return Undefined(
                f"{name}: {said}. Where that is a special token, the tokenizer lacks it: choose a template that does "
                "not need it."
            )
        case "refused":
            return Refusal(f"{name} cannot write this conversation: {said.rstrip('.')}.")
        case "length":
            return TemplateError(f"{name}: {said}. Look for a loop in it that repeats too often.")
        case _:
            return TemplateError(f"{name} cannot write this conversation: {said.rstrip('.')}.")


def _column(text: str, number: int, said: str) -> str:
    """Jinja tells only the line. The column is that of the word it complains of, or of the line's first tag."""
    lines = text.splitlines()
    line = lines[number - 1] if 0 < number <= len(lines) else ""
    words = re.findall(r"'([^']+)'", said)
    places = [line.find(word) for word in words if word in line] or [
        line.find(tag) for tag in ("{%", "{{") if tag in line
    ]
    return f", column {min(places) + 1}" if places else ", column 1"
