"""Find and keep templates: one .jinja file each, shipped in templates/ or written here, under STUDIO_HOME.

A header, a comment of YAML at the beginning, tells what a template is for; one that was written here may do without.
Not here: a model's own template, which belongs to its tokenizer (tokenizer), and what is wrong with one that can be
loaded (checking).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from studio.errors import StudioError, TemplateError, unknown
from studio.home import NAME, SHIPPED_TEMPLATES, checked_name, home, write_atomically
from studio.templates.rendering import HEADER, Origin, Template, variables

AUTO = "auto"
MAX_BYTES = 1024**2
"""Of a template: the longest that is known has 30,000."""

_LISTS = ("families", "stop", "also")
_WORDS = ("title", "source", "system", "deviates")
_MAX_HEADER = 20_000
"""Characters of a header: YAML takes long to read."""
_MEANT = re.compile(rf"^\s*({'|'.join((*_WORDS, *_LISTS))})\s*:", re.MULTILINE)
"""In a comment that is meant as a header, rather than about something else."""

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
    """Names of all templates, sorted: the shipped ones and those that were written here."""
    return sorted(_files())


def every() -> list[Template]:
    """All templates that can be loaded; problems() tells of the others."""
    return [found for name, path in sorted(_files().items()) if isinstance(found := _tried(name, path), Template)]


def shipped() -> list[Template]:
    """The templates that come with the studio."""
    return [found for name, path in sorted(_shipped()) if isinstance(found := _tried(name, path), Template)]


def problems() -> list[str]:
    """One sentence for each template that cannot be used."""
    told = [str(found) for name, path in sorted(_files().items()) if isinstance(found := _tried(name, path), Exception)]
    ours = dict(_shipped())
    return told + [
        f"Your template '{name}' is not used, because one that comes with the studio has this name now. Rename {path}."
        for name, path in sorted(_own())
        if name in ours
    ]


def load(name: str) -> Template:
    """A template by its name.

    Raises: TemplateError: there is none, its header is wrong, or it is not valid Jinja (with line and column).
    """
    path = _files().get(name)
    if path is None:
        raise TemplateError(_absent(name))
    found = _tried(name, path)
    if isinstance(found, Template):
        return found
    raise type(found)(str(found))  # a new one, because the one that is kept would collect where it was raised


def save(name: str, text: str, *, replace: bool = True) -> Template:
    """Keep a template that was written here. replace: also where there is one of this name.

    Raises: StudioError: the name cannot be used, or is that of a shipped template. TemplateError: the text is no
        template, is too long, or its header is wrong.
    """
    checked_name(name, "template name")
    if name == AUTO or name in dict(_shipped()):
        whose = "the model's own template" if name == AUTO else "a template that comes with the studio"
        raise TemplateError(f"'{name}' is the name of {whose}. Choose another name.")
    _measured(name, text)
    parse(name, text, "own")
    path = home().own_templates / f"{name}.jinja"
    if not replace and path.exists():
        raise TemplateError(f"There is a template '{name}' already. Choose another name, or remove that one first.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        raise TemplateError(f"{path} cannot be written: {error.strerror}. Free space, or set STUDIO_HOME.") from error
    return load(name)


def remove(name: str) -> None:
    """Delete a template that was written here. Raises: TemplateError: there is none of this name."""
    path = own_named(name)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise TemplateError(f"{path} cannot be removed: {error.strerror}.") from error


def own_named(name: str) -> Path:
    """The file of a template that was written here. Raises: TemplateError: there is none of this name."""
    own = dict(_own())
    if name in own:
        return own[name]
    if name == AUTO or name in dict(_shipped()):
        raise TemplateError(f"Template '{name}' was not written here, so it cannot be removed.")
    raise TemplateError(unknown("template of yours", name, own))


def parse(name: str, text: str, origin: Origin = "shipped") -> Template:
    """A template from the text of a file. Raises: TemplateError: it is not valid Jinja, or its header is wrong."""
    about = _header(name, text, needed=origin == "shipped")
    lists = {field: tuple(map(str, about.get(field) or ())) for field in _LISTS}
    words = {field: str(about.get(field) or "") for field in _WORDS} | {"title": str(about.get("title") or name)}
    template = Template(name, text, origin=origin, **words, **lists)
    strangers = [each for each in variables(template) if each not in CONTEXT]
    if strangers and origin == "shipped":
        raise TemplateError(f"Template '{name}': {unknown('variable', strangers[0], CONTEXT)}")
    return template


# --- Files ---


def _files() -> dict[str, Path]:
    """Where each template is; a shipped one goes before another of its name."""
    return dict([*_own(), *_shipped()])


def _shipped() -> Iterator[tuple[str, Path]]:
    return _in(SHIPPED_TEMPLATES)


def _own() -> Iterator[tuple[str, Path]]:
    return _in(home().own_templates)


def _in(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.glob("*.jinja"):
        if NAME.fullmatch(path.stem):
            yield path.stem, path


_read: dict[Path, tuple[tuple[int, int], Template | TemplateError]] = {}
"""What was found in a file, and the file's time and size then. The page asks for all templates often."""


def _tried(name: str, path: Path) -> Template | TemplateError:
    try:
        state = path.stat()
        stamp = state.st_mtime_ns, state.st_size
        known = _read.get(path)
        if known is None or known[0] != stamp:
            known = _read[path] = stamp, _parsed(name, path)
        return known[1]
    except OSError as error:
        return TemplateError(f"Template {path} cannot be read: {error.strerror}.")
    except StudioError as error:  # nothing is wrong with the file, so it is tried again next time
        return TemplateError(f"Template '{name}' cannot be checked. {error}")


def _parsed(name: str, path: Path) -> Template | TemplateError:
    origin: Origin = "shipped" if path.parent == SHIPPED_TEMPLATES else "own"
    try:
        with path.open(encoding="utf-8") as file:
            return parse(name, _measured(name, file.read(MAX_BYTES + 1)), origin)
    except UnicodeDecodeError as error:
        return TemplateError(f"Template {path} is not text in UTF-8: {error}. Save it as such, or remove it.")
    except TemplateError as error:
        return error


def _measured(name: str, text: str) -> str:
    """The text itself. Raises: TemplateError: it is too long, or cannot be written to a file."""
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise TemplateError(f"Template '{name}' holds half a character at place {error.start}. Remove it.") from error
    if size > MAX_BYTES:
        raise TemplateError(
            f"Template '{name}' has more than {MAX_BYTES // 1024:,} KiB. The longest known have some 30: "
            "see that it is a template."
        )
    return text


def _absent(name: str) -> str:
    if name == AUTO:
        return "'auto' is the model's own template, so it needs a model. Name one, or choose a template from the list."
    for each in shipped():
        if name in each.also:
            return f"Unknown template '{name}'. It is called '{each.name}' here."
    return unknown("template", name, [*names(), AUTO])


# --- Headers ---


def _header(name: str, text: str, *, needed: bool) -> Mapping[str, Any]:
    match = HEADER.match(text)
    if not needed and (match is None or not _MEANT.search(match[1][:_MAX_HEADER])):
        return {}
    if match and len(match[1]) > _MAX_HEADER:
        raise TemplateError(f"Template '{name}': the header has more than {_MAX_HEADER:,} characters. Shorten it.")
    try:
        about = yaml.safe_load(match[1]) if match else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise TemplateError(f"Template '{name}': the header is not valid YAML: {error}.") from error
    if not isinstance(about, dict):
        raise TemplateError(f"Template '{name}' has no header. Begin with {{# title: ... #}}.")
    for field in _LISTS:
        if not isinstance(about.get(field) or [], list):
            raise TemplateError(f"Template '{name}': {field} in the header must be a list.")
        # whatever is nested may be referred to again and again, and would be without end as text
        if any(isinstance(each, list | dict) for each in about.get(field) or ()):
            raise TemplateError(f"Template '{name}': {field} in the header must be a list of words.")
    for field in _WORDS:
        if isinstance(about.get(field), list | dict):
            raise TemplateError(f"Template '{name}': {field} in the header must be text.")
    return about
