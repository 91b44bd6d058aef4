"""The fold in which a template is written: begun from another one, checked, shown with the row, saved, removed.

A draft is a stranger's program like any that was pasted, and is written in a process with limits. Not here: what can
be wrong with a template (studio.templates.checking), how the row looks with it (studio.ui.template_row).
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio import templates
from studio.errors import StudioError
from studio.home import NAME
from studio.templates import AUTO, Template, TextTokenizer, library
from studio.templates.checking import Finding, check
from studio.ui import preview, run_panel, template_names, token_view
from studio.ui.page import guarded
from studio.ui.template_names import NO_SECOND
from studio.ui.template_row import Draft
from studio.ui.texts import language, say, t
from studio.ui.waiting import while_working

Updates = dict[Any, Any]

BEGIN = "\0begin"
"""What `warned` holds after a first press of the button that would replace the text; no template has this name."""


@dataclass(frozen=True)
class Widgets:
    """draft: a Draft that is shown instead of the chosen template, or None. clean: the text as it was begun or saved.

    warned: what the next press does although it replaces something: the name to save under, or BEGIN.
    """

    begin: gr.Button
    leave: gr.Button
    text: gr.Code
    name: gr.Textbox
    actions: gr.Row
    check: gr.Button
    save: gr.Button
    remove: gr.Button
    asking: gr.Row
    question: gr.HTML
    remove_yes: gr.Button
    remove_no: gr.Button
    told: gr.HTML
    draft: gr.State
    clean: gr.State
    warned: gr.State

    @property
    def told_of(self) -> list[Any]:
        """What `standing` updates, in its order."""
        return [self.remove, self.leave]


def build() -> Widgets:
    """One closed fold."""
    made: dict[str, Any] = {"draft": gr.State(None), "clean": gr.State(""), "warned": gr.State("")}
    with gr.Accordion(t("template.editor.title"), open=False, elem_id="template-own-fold", elem_classes="fold"):
        with gr.Row(elem_classes="actions"):
            made["begin"] = _button("begin", 150)
            made["leave"] = _button("leave", 150, interactive=False)
        made["text"] = gr.Code(
            "", language="jinja2", lines=14, max_lines=28, label=t("template.editor.text"), wrap_lines=True,
            elem_id="template-own-text", interactive=True, buttons=[],
        )  # fmt: skip
        made["name"] = gr.Textbox(
            "", max_lines=1, label=t("template.editor.name"), info=t("template.editor.name_help"),
            elem_id="template-own-name",
        )  # fmt: skip
        with gr.Row(elem_classes="actions") as made["actions"]:
            made["check"] = _button("check", 150)
            made["save"] = _button("save", 90)
            made["remove"] = _button("remove", 90, interactive=False)
        with gr.Row(elem_classes="actions", visible=False) as made["asking"]:
            made["question"] = gr.HTML("", elem_id="template-own-question")
            made["remove_yes"] = _button("remove_yes", 120, variant="stop")
            made["remove_no"] = _button("remove_no", 90)
        made["told"] = gr.HTML("", elem_id="template-own-told", min_height=24)
    return Widgets(**made)


def _button(name: str, width: int, **more: Any) -> gr.Button:
    return gr.Button(
        t(f"template.editor.{name}"), elem_id=f"template-own-{name.replace('_', '-')}", size="sm", scale=0,
        min_width=width, **more,
    )  # fmt: skip


def standing(name: str, draft: Draft | None) -> list[Any]:
    """Updates of the buttons that only fit some templates."""
    return [gr.update(interactive=name in template_names.own()), gr.update(interactive=draft is not None)]


def wire(widgets: Widgets, model: Any, template: Any, second: Any, asked_anew: gr.State) -> None:
    """Connect the fold's events. asked_anew: a number that makes the tab show its row anew when it rises."""
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "once"}
    w = widgets

    def working(request: gr.Request) -> Callable[[float], Updates]:
        return lambda seconds: {w.told: _note(say("template.editor.working", request, seconds=f"{seconds:.0f}"))}

    def begin(name: str, whose: str | None, text: str | None, clean: str, warned: str, request: gr.Request) -> Updates:
        if (text or "").strip() and text != clean and warned != BEGIN:
            return {w.told: _note(say("template.editor.lose", request)), w.warned: BEGIN}
        found = preview.tokenizer((whose or "").strip()).own_template if name == AUTO else templates.load(name)
        return {w.text: found.text, w.clean: found.text, w.name: _suggested(found), w.told: "", w.warned: ""}

    def checked(
        whose: str, over: str, text: str | None, name: str | None, times: int, request: gr.Request
    ) -> Iterator[Updates]:
        """Findings first: with a draft that never ends, the row is not tried too."""
        if not (text or "").strip():
            yield {w.told: _note(say("template.editor.nothing", request))}
            return
        draft = Draft(over, _usable(name, request), text or "")
        try:
            found = yield from while_working(lambda: _checked(draft, whose), working(request))
        except StudioError as error:
            yield {w.told: run_panel.problem(str(error))}
            return
        told = {w.told: _told(found, request), w.warned: ""}
        yield told if _unfinished(found) else {**told, w.draft: draft, asked_anew: times + 1}

    def save(
        name: str | None, text: str | None, over: str, warned: str, times: int, request: gr.Request
    ) -> Iterator[Updates]:
        name = (name or "").strip()
        if not (text or "").strip():
            yield {w.told: _note(say("template.editor.nothing", request))}
            return
        if name in template_names.own() and name not in (over, warned):
            yield {w.told: _note(say("template.editor.replace", request, name=name)), w.warned: name}
            return
        try:
            yield from while_working(lambda: library.save(name, text or ""), working(request))
        except StudioError as error:
            yield {w.told: run_panel.problem(str(error))}
            return
        yield {
            w.told: _note(say("template.editor.saved", request, name=name)),
            w.draft: None, w.clean: text, w.warned: "",
            template: gr.update(choices=template_names.titled(request), value=name),
            second: gr.update(choices=template_names.seconds(request)),
            asked_anew: times + 1,
        }  # fmt: skip

    def ask(name: str, request: gr.Request) -> Updates:
        question = f"<p role='alert'>{html.escape(say('template.editor.ask_remove', request, name=name))}</p>"
        return {w.question: question, **_asks(w, True)}

    def remove(name: str, other: str | None, times: int, request: gr.Request) -> Updates:
        try:
            library.remove(name)
        except StudioError as error:
            return {w.told: run_panel.problem(str(error)), **_asks(w, False)}
        kept = {} if other != name else {"value": NO_SECOND}
        return {
            **_asks(w, False),
            w.told: _note(say("template.editor.removed", request, name=name)),
            w.draft: None,
            template: gr.update(choices=template_names.titled(request), value=AUTO),
            second: gr.update(choices=template_names.seconds(request), **kept),
            asked_anew: times + 1,
        }

    w.begin.click(
        guarded(begin), [template, model, w.text, w.clean, w.warned],
        [w.text, w.clean, w.name, w.told, w.warned], preprocess=False, api_name="template_begin", **quiet,
    )  # fmt: skip
    w.check.click(
        guarded(checked), [model, template, w.text, w.name, asked_anew], [w.told, w.draft, w.warned, asked_anew],
        preprocess=False, api_name="template_check", **quiet,
    )  # fmt: skip
    w.save.click(
        guarded(save), [w.name, w.text, template, w.warned, asked_anew],
        [w.told, w.draft, w.clean, w.warned, template, second, asked_anew], preprocess=False,
        api_name="template_save", **quiet,
    )  # fmt: skip
    asks = [w.actions, w.asking, w.question]
    w.remove.click(guarded(ask), template, asks, preprocess=False, api_name="template_ask_remove", **quiet)
    w.remove_no.click(lambda: _asks(w, False), None, asks, api_name="template_keep", **quiet)
    w.remove_yes.click(
        guarded(remove), [template, second, asked_anew], [*asks, w.told, w.draft, template, second, asked_anew],
        preprocess=False, api_name="template_remove", **quiet,
    )  # fmt: skip
    w.leave.click(
        lambda times: (None, times + 1), asked_anew, [w.draft, asked_anew], api_name="template_leave", **quiet
    )


def _asks(widgets: Widgets, asking: bool) -> Updates:
    """The question takes the place of the buttons, so that nothing moves."""
    return {widgets.actions: gr.update(visible=not asking), widgets.asking: gr.update(visible=asking)}


def _checked(draft: Draft, model: str | None) -> list[Finding]:
    """Raises: TemplateError: the draft is no template, or its header is wrong."""
    template = library.parse(draft.name, draft.text, "own")
    reader = _reader(model)
    # with a model they are kept, for the row is shown next, with the same findings below it
    return list(preview.findings(template, reader)) if reader else check(template)


def _reader(model: str | None) -> TextTokenizer | None:
    """Of a model that is here; a template can be checked without one too."""
    try:
        return preview.tokenizer((model or "").strip())
    except StudioError:
        return None


def _unfinished(found: list[Finding]) -> bool:
    return any(each.kind == "unfinished" for each in found)


def _told(found: list[Finding], request: gr.Request) -> str:
    told = token_view.findings(found, language(request)) or _note(say("template.editor.well", request))
    shown = "" if _unfinished(found) else _note(say("template.editor.shown", request))
    return f"<div role='status'>{told}{shown}</div>"


def _usable(name: str | None, request: gr.Request) -> str:
    """The name that a draft is called by in what is told of it."""
    name = (name or "").strip()
    return name if NAME.fullmatch(name) else say("template.editor.draft", request)


def _suggested(template: Template) -> str:
    if template.origin == "own":
        return template.name
    return f"my-{'template' if template.origin == 'model' else template.name}"


def _note(text: str) -> str:
    return f"<p class='note' role='status'>{html.escape(text)}</p>"
