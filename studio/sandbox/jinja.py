"""Jinja as Hugging Face templates expect it, in a sandbox, with bounds; a request goes in, a plain answer comes out.

The sandbox keeps a template from Python's inside, and stops what is plainly too much. It cannot stop each way to use up
time and memory (a filter may fill either, some already while the template is compiled), so strangers' templates run in
a process with limits (child). Not here: conversations and sentences about faults (studio.templates.rendering).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sized
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.debug  # it would be imported at the first fault, when the process may open nothing any more
import jinja2.ext
import jinja2.meta
import jinja2.nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_REPEATED = 100_000
"""Items of a text or list that a template multiplies."""

MARKS = ("generation_opening", "generation_closing")
"""Variables of the context that are written around what the assistant says; a template without them writes none."""

_WIDTH = re.compile(r"%[^%a-zA-Z]*?(\*|\d{6,})")
"""A width or precision of % formatting that is beyond that, or is itself a value."""

_OTHER_FILES = (jinja2.nodes.Include, jinja2.nodes.Import, jinja2.nodes.FromImport, jinja2.nodes.Extends)


class Refusal(jinja2.TemplateError):
    """A template does not take the conversation and says so: raise_exception(...)."""


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """What becomes of a template; never raises for what a template does, short of filling the memory.

    request: {"text": the template, "values": what it finds in its context, "most": characters that it may write}: it
    answers {"text": …}. Without values it is only compiled: {"names": variables that it reads from outside}.
    Otherwise {"fault": kind, "say": what is wrong}, and "line" where the kind is syntax. Kinds: syntax, refused (in its
    own words), undefined, length, wrong.
    """
    try:
        if "values" not in request:
            return {"names": _names(request["text"])}
        return _written(_compiled(request["text"]), request["values"], request["most"])
    except jinja2.TemplateSyntaxError as error:
        return {"fault": "syntax", "say": error.message or "it is not valid", "line": error.lineno}
    except Refusal as error:
        return {"fault": "refused", "say": error.message or ""}
    except jinja2.UndefinedError as error:
        return {"fault": "undefined", "say": error.message or ""}
    except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        return {"fault": "wrong", "say": str(error)[:1000] or type(error).__name__}
    except RecursionError:
        return {"fault": "wrong", "say": "it calls itself, or nests, more deeply than is possible"}


def _written(template: jinja2.Template, values: Mapping[str, Any], most: int) -> dict[str, Any]:
    pieces, length = [], 0
    for piece in template.generate(values):
        length += len(piece)
        if length > most:
            return {"fault": "length", "say": f"it wrote more than {most:,} characters"}
        pieces.append(piece)
    return {"text": "".join(pieces)}


@lru_cache(maxsize=128)
def _compiled(text: str) -> jinja2.Template:
    tree = _parsed(text)
    try:
        return environment().from_string(tree)
    except SyntaxError as error:  # of the Python that Jinja makes of it, such as loops in loops in loops
        raise jinja2.TemplateSyntaxError(error.msg, 1) from error


def _names(text: str) -> list[str]:
    """Variables that the template reads and does not set. Raises: jinja2.TemplateSyntaxError."""
    found = jinja2.meta.find_undeclared_variables(_parsed(text))
    _compiled(text)  # which finds what reading alone does not
    return sorted(found - {*environment().globals, *MARKS})


def _parsed(text: str) -> jinja2.nodes.Template:
    try:
        tree = environment().parse(text)
    except RecursionError as error:
        raise jinja2.TemplateSyntaxError("it nests more deeply than is possible", 1) from error
    other = tree.find(_OTHER_FILES)
    if other is not None:
        raise jinja2.TemplateSyntaxError(
            f"'{type(other).__name__.removeprefix('From').lower()}' needs another file, and a chat template is one",
            other.lineno,
        )
    return tree


class _Generation(jinja2.ext.Extension):
    """{% generation %}: what the assistant writes. Around it go the marks of the context, if there are any."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> list[jinja2.nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        opening, closing = (
            jinja2.nodes.Output([jinja2.nodes.Name(mark, "load", lineno=line)], lineno=line) for mark in MARKS
        )
        return [opening, *body, closing]


class _Sandbox(ImmutableSandboxedEnvironment):
    """A model's template is a stranger's program: no reach into Python, no numbers or texts that fill the memory."""

    # what is listed here is also not computed while the template is compiled
    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise SecurityError("powers are not allowed")
        if operator == "%":
            if isinstance(left, str) and _WIDTH.search(left):
                raise SecurityError(f"fields wider than {MAX_REPEATED:,} characters are not allowed")
            return super().call_binop(context, operator, left, right)
        for many, times in ((left, right), (right, left)):
            if isinstance(many, Sized) and isinstance(times, int) and len(many) * times > MAX_REPEATED:
                raise SecurityError(f"more than {MAX_REPEATED:,} repeated items are not allowed")
        return super().call_binop(context, operator, left, right)


class _Namespace(jinja2.utils.Namespace):
    """namespace() for templates, without a way to names that belong to Python."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"the name {name} is not allowed in a namespace")
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
    raise Refusal(str(message)[:1000])


def _now(format: str) -> str:
    return datetime.now().strftime(format)


def _dict(**values: Any) -> dict[str, Any]:
    return values
