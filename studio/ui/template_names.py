"""What a list of templates offers: their names, with titles. Not here: the templates (studio.templates.library)."""

from __future__ import annotations

import gradio as gr

from studio import templates
from studio.templates import library
from studio.ui.texts import say

NO_SECOND = ""
"""The choice of no other template to compare with."""


def plain() -> list[tuple[str, str]]:
    """Just the names, as the Train form has them."""
    return [(name, name) for name in (templates.AUTO, *templates.names())]


def titled(request: gr.Request) -> list[tuple[str, str]]:
    """Names with titles. One that cannot be loaded stands among them, to be looked at and removed."""
    mine = say("template.mine", request)
    titles = {each.name: mine if each.origin == "own" else each.title for each in templates.every()}
    auto = (f"{templates.AUTO} · {say('template.own', request)}", templates.AUTO)
    return [auto, *((f"{name} · {titles[name]}" if name in titles else name, name) for name in templates.names())]


def seconds(request: gr.Request) -> list[tuple[str, str]]:
    """The same, and none at all."""
    return [(say("template.no_second", request), NO_SECOND), *titled(request)]


def own() -> set[str]:
    """Names of the templates that were written here."""
    return set(templates.names()) - {each.name for each in library.shipped()}
