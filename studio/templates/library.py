"""Find and check templates: one .jinja file each in templates/, with a YAML header in a comment.

Not here: a model's own template, which belongs to its tokenizer (tokenizer).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2.meta
import yaml

from studio.errors import TemplateError, unknown
from studio.home import NAME, SHIPPED_TEMPLATES
from studio.templates.rendering import HEADER, Origin, Template, compiled, environment

AUTO = "auto"
_LISTS = ("families", "stop", "also")

CONTEXT = {
    "messages",
    "add_generation_prompt",
    "bos_token",
    "eos_token",
    "pad_token",
    "unk_token",
    "tools",
    "documents",
}
"""What a template of ours may read. A model's own template may ask for more, and finds it undefined."""


def names() -> list[str]:
    """Names of the templates in templates/, sorted."""
    return sorted(path.stem for path in SHIPPED_TEMPLATES.glob("*.jinja") if NAME.fullmatch(path.name))


def every() -> list[Template]:
    """The templates in templates/ that can be loaded; problems() tells of the others."""
    return [template for name in names() if isinstance(template := _tried(name), Template)]


def problems() -> list[str]:
    """One sentence for each template in templates/ that cannot be loaded."""
    return [str(error) for name in names() if isinstance(error := _tried(name), TemplateError)]


def load(name: str) -> Template:
    """A template of templates/ by its name.

    Raises: TemplateError: there is none, its header is wrong, or it is not valid Jinja (with line and column).
    """
    if name not in names():
        raise TemplateError(unknown("template", name, [*names(), AUTO]))
    path = SHIPPED_TEMPLATES / f"{name}.jinja"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"Template {path} cannot be read: {error}.") from error
    return parse(name, text)


def parse(name: str, text: str, origin: Origin = "shipped") -> Template:
    """A template from the text of a file with a header. Raises: TemplateError."""
    about = _header(name, text)
    compiled(name, text)
    known = {*CONTEXT, *environment().globals}
    if strangers := sorted(jinja2.meta.find_undeclared_variables(environment().parse(text)) - known):
        raise TemplateError(f"Template '{name}': {unknown('variable', strangers[0], CONTEXT)}")
    lists = {field: tuple(map(str, about.get(field) or ())) for field in _LISTS}
    words = {field: str(about.get(field) or "") for field in ("source", "system", "deviates")}
    return Template(name, text, str(about.get("title") or name), origin=origin, **lists, **words)


def _tried(name: str) -> Template | TemplateError:
    try:
        return load(name)
    except TemplateError as error:
        return error


def _header(name: str, text: str) -> Mapping[str, Any]:
    match = HEADER.match(text)
    try:
        about = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError as error:
        raise TemplateError(f"Template '{name}': the header is not valid YAML: {error}.") from error
    if not isinstance(about, dict):
        raise TemplateError(f"Template '{name}' has no header. Begin with {{# title: ... #}}.")
    for field in _LISTS:
        if not isinstance(about.get(field) or [], list):
            raise TemplateError(f"Template '{name}': {field} in the header must be a list.")
    return about
