"""The Chat tab: one message, two answers side by side, such as a base and its adapter.

A client of the chat server: nothing is loaded here. A conversation lives as long as the page is open. Not here: the
server (studio.serving), and what a conversation is (studio.ui.conversation).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from studio import specs
from studio.errors import ServingError, StudioError
from studio.serving import voices
from studio.serving.voices import BASE, Voice
from studio.ui import adapters, run_panel
from studio.ui.conversation import Column, loading
from studio.ui.page import AllWidgets, Page, guarded
from studio.ui.texts import language, say, t, table

DRAW_S = 0.06
"""Least seconds between two drawings of an answer that streams in; more would only load the browser."""

SAMPLING = {"temperature": 0.05, "top_p": 0.01, "top_k": 1, "repetition_penalty": 0.01, "max_tokens": 1, "seed": 1}
"""The sampling fields in the order of their widgets, and the step of each."""


_SCRIPT = Path(__file__).resolve().parent.parent / "conversation.js"


@dataclass(frozen=True)
class Side:
    """The widgets of one column. turns: its conversation, kept on the server for this browser; log only shows it.

    A gr.Chatbot would render tags that a model writes, even with markdown off.
    """

    adapter: gr.Dropdown
    log: gr.HTML
    figures: gr.HTML
    turns: gr.State


@dataclass(frozen=True)
class Widgets:
    """base: the model that both sides share. confirmed: carries the browser's answer to the question before Clear."""

    base: gr.Dropdown
    precision: gr.Radio
    left: Side
    right: Side
    message: gr.Textbox
    send: gr.Button
    stop: gr.Button
    clear: gr.Button
    confirmed: gr.Checkbox
    status: gr.HTML
    system: gr.Textbox
    sampling: dict[str, gr.Number | gr.Textbox]


def build(page: Page) -> Widgets:
    """Two columns over one message box; what is seldom changed is folded."""
    with gr.Row(elem_classes="columns"):
        base = gr.Dropdown(
            [specs.BUNDLED_MODEL], value=specs.BUNDLED_MODEL, allow_custom_value=True, label=t("chat.base"),
            info=t("chat.base_help"), elem_id="chat-base", min_width=260,
        )  # fmt: skip
        precision = gr.Radio([], label=t("chat.precision"), elem_id="chat-precision", visible=False)
    with gr.Row(elem_classes="columns"):
        left, right = _side("left"), _side("right")
    status = gr.HTML("", elem_id="chat-status", min_height=24)  # its place is kept, so that nothing jumps
    message = gr.Textbox(
        label=t("chat.message"), placeholder=t("chat.placeholder"), lines=1, max_lines=8, elem_id="chat-message"
    )
    with gr.Row(elem_classes="actions"):
        send = gr.Button(t("chat.send"), variant="primary", elem_id="chat-send", scale=0, min_width=140)
        stop = gr.Button(t("chat.stop"), elem_id="chat-stop", scale=0, min_width=100)
        clear = gr.Button(t("chat.clear"), elem_id="chat-clear", scale=0, min_width=100)
    with gr.Accordion(t("chat.more"), open=False, elem_id="chat-more", elem_classes="fold"):
        system = gr.Textbox(
            label=t("chat.system"), info=t("chat.system_help"), lines=2, max_lines=8, elem_id="chat-system"
        )
        with gr.Row(elem_classes="form-grid"):
            sampling = {name: _number(name, step) for name, step in SAMPLING.items()}
    confirmed = gr.Checkbox(visible=False)
    return Widgets(base, precision, left, right, message, send, stop, clear, confirmed, status, system, sampling)


def wire(page: Page, all: AllWidgets) -> None:
    """Connect the tab's events."""
    widgets: Widgets = all["chat"]
    _wire_choices(page, widgets)
    _wire_talk(page, widgets)


def _side(name: str) -> Side:
    with gr.Column(min_width=300):
        return Side(
            adapter=gr.Dropdown(
                [], value=None, label=t(f"chat.{name}"), elem_id=f"chat-{name}-adapter", filterable=False
            ),
            log=gr.HTML(
                "[]",
                html_template='<div class="talk" role="log" aria-live="polite" tabindex="0"></div>',
                js_on_load=_SCRIPT.read_text(encoding="utf-8"),
                elem_id=f"chat-{name}",
            ),
            figures=gr.HTML(Column().figures("en"), elem_id=f"chat-{name}-figures"),
            turns=gr.State(Column()),
        )


def _number(name: str, step: float) -> gr.Number | gr.Textbox:
    field = specs.Sampling.model_fields[name]
    common = {"label": t(f"sampling.{name}.label"), "info": t(f"sampling.{name}.help"), "elem_id": f"chat-{name}"}
    if field.default is None:  # gradio shows an empty Number as 0
        return gr.Textbox("", placeholder=t("train.empty"), max_lines=1, min_width=180, **common)
    return gr.Number(field.default, step=step, precision=0 if step == 1 else None, min_width=180, **common)


# --- who answers


def _wire_choices(page: Page, widgets: Widgets) -> None:
    chosen = [widgets.left.adapter, widgets.right.adapter]
    who = [*chosen, widgets.base, widgets.precision]
    quiet = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}

    def opened(request: gr.Request) -> list[Any]:
        return _choices(page, BASE, None, None, request)

    def selected(left: str | None, right: str | None, base: str | None, request: gr.Request) -> list[Any]:
        return _choices(page, left, right, base, request)

    def picked(adapter: str | None, left: str | None, right: str | None, base: str, request: gr.Request) -> list[Any]:
        """The base of the run that was just chosen becomes the base of both sides."""
        own = voices.find(adapter).base if adapter and adapter != BASE else base
        return [own, _precision([left, right], request)]

    page.on_load(opened, None, who)
    page.tabs["chat"].select(guarded(selected), [*chosen, widgets.base], who, api_name="chat_selected", **quiet)
    for name, side in (("left", widgets.left), ("right", widgets.right)):
        side.adapter.input(
            guarded(picked),
            [side.adapter, *chosen, widgets.base],
            [widgets.base, widgets.precision],
            api_name=f"chat_picked_{name}",
            **quiet,
        )


def _choices(page: Page, left: str | None, right: str | None, base: str | None, request: gr.Request) -> list[Any]:
    """Both lists and the base. An empty right side takes the newest finished run, on the run's own base."""
    found = adapters.choices(page.monitor)
    values = [BASE, *(value for _, value in found)]
    left = left if left in values else BASE
    if right not in values:
        right = adapters.asked_for(page.monitor, request)
        base = voices.find(right).base if right and left == BASE else base
    listed = [(say("chat.base_alone", request), BASE), *found]
    bases = dict.fromkeys([specs.BUNDLED_MODEL, *(_base_of(view.spec) for view in page.monitor.views("train"))])
    return [
        gr.update(choices=listed, value=left),
        gr.update(choices=listed, value=right),
        gr.update(choices=[name for name in bases if name], value=base or specs.BUNDLED_MODEL),
        _precision([left, right], request),
    ]


def _base_of(spec: dict[str, Any] | None) -> str | None:
    return spec["model"]["name"] if spec else None


def _precision(chosen: list[str | None], request: gr.Request) -> Any:
    """The choice of precision, where one of the chosen runs trained on a quantised base."""
    kinds = [voices.find(name).quantization for name in chosen if name and name != BASE]
    kind = next((kind for kind in kinds if kind != "none"), None)
    if kind is None:
        return gr.update(choices=[], value=None, visible=False)
    options = [(say("chat.full", request), "full"), (say("chat.as_trained", request, kind=kind), kind)]
    return gr.update(choices=options, value="full", visible=True)


# --- the conversation


def _wire_talk(page: Page, widgets: Widgets) -> None:
    sides = [widgets.left, widgets.right]
    drawn = [part for side in sides for part in (side.turns, side.log, side.figures)]
    asked = [
        widgets.message, *(side.adapter for side in sides), *(side.turns for side in sides),
        widgets.base, widgets.precision, widgets.system, *widgets.sampling.values(),
    ]  # fmt: skip
    quiet = {"api_visibility": "private", "show_progress": "hidden"}

    async def send(request: gr.Request, *values: Any) -> AsyncIterator[list[Any]]:
        text, left, right, left_turns, right_turns, base, precision, system, *sampling = values
        try:
            talk = Talk(page.client, [left, right], base, precision, system, to_sampling(sampling), language(request))
            async for step in talk.answers((text or "").strip(), [left_turns, right_turns]):
                yield step
        except StudioError as error:
            # beside the box, and the message comes back into it, so that it can be sent again
            yield [text, run_panel.problem(str(error)), *[gr.skip()] * len(drawn)]

    def clear(confirmed: bool) -> list[Any]:
        if not confirmed:
            return [gr.skip()] * (len(drawn) + 1)
        return [*_drawn([Column(), Column()], "en"), ""]

    sent = gr.on(
        [widgets.send.click, widgets.message.submit],
        guarded(send), asked, [widgets.message, widgets.status, *drawn],
        api_name="chat_send", trigger_mode="once", concurrency_limit=4, **quiet,
    )  # fmt: skip
    widgets.stop.click(None, None, None, cancels=[sent], api_visibility="private")
    # a cancelled handler cannot tidy up after itself
    widgets.stop.click(lambda: "", None, widgets.status, api_name="chat_stopped", **quiet)
    widgets.clear.click(
        guarded(clear), widgets.confirmed, [*drawn, widgets.status], js=_confirm(), cancels=None,
        api_name="chat_clear", **quiet,
    )  # fmt: skip


@dataclass
class Talk:
    """One message to both sides: check that they fit together, load what they need, stream what they say."""

    client: Any
    names: list[str | None]
    base: str | None
    precision: str | None
    system: str | None
    sampling: specs.Sampling
    language: str

    async def answers(self, text: str, columns: list[Column]) -> AsyncIterator[list[Any]]:
        """Updates for the message box, the status line and both columns. Raises: StudioError: nobody can answer."""
        if not text:
            raise ServingError(table(self.language)["chat.empty"])
        spoken = [(index, voices.find(name, base=self.base)) for index, name in enumerate(self.names) if name]
        if not spoken:
            raise ServingError("No model is chosen. Choose one on the left, and another on the right to compare.")
        voice = voices.together(each for _, each in spoken)
        columns = [column.asked(text) if self.names[i] else column for i, column in enumerate(columns)]
        yield ["", "", *_drawn(columns, self.language)]
        async for step in self._stream(spoken, voice, columns):
            yield step

    async def _stream(
        self, spoken: list[tuple[int, Voice]], voice: Voice, columns: list[Column]
    ) -> AsyncIterator[list[Any]]:
        client = self._client()
        loaded = asyncio.create_task(asyncio.to_thread(self._ensure, client, voice.base, phases := []))
        began = time.monotonic()
        while not (await asyncio.wait([loaded], timeout=0.4))[0]:
            phase = loading(phases[-1] if phases else "start", time.monotonic() - began, table(self.language))
            yield [gr.skip(), phase, *[gr.skip()] * 6]
        requests = [(each.model, columns[i].messages(self._system(spoken))) for i, each in spoken]
        drawn_at = 0.0
        async with aclosing(client.stream(loaded.result(), requests, self.sampling)) as deltas:
            async for delta in deltas:
                index = spoken[delta.column][0]
                columns[index] = columns[index].heard(delta)
                if delta.done or time.monotonic() - drawn_at > DRAW_S:
                    drawn_at = time.monotonic()
                    yield [gr.skip(), "", *_drawn(columns, self.language)]

    def _client(self) -> Any:
        if self.client is not None:
            return self.client
        from studio.serving import client

        return client

    def _ensure(self, client: Any, base: str, phases: list[str]) -> Any:
        quantization = "none" if self.precision in (None, "full") else self.precision
        return client.ensure(base, quantization=quantization, on_phase=phases.append)

    def _system(self, spoken: list[tuple[int, Voice]]) -> str | None:
        """The same for both sides, or their answers could not be compared: the given one, else a run's own."""
        return (self.system or "").strip() or next((voice.system for _, voice in spoken if voice.system), None)


def to_sampling(values: Sequence[float | str | None]) -> specs.Sampling:
    """The sampling that the widgets ask for; an empty one is the default. Raises: SpecError: a value is wrong."""
    given = {name: value for name, value in zip(SAMPLING, values, strict=True) if value not in (None, "")}
    return specs.parse(specs.Sampling, given)


def _drawn(columns: list[Column], spoken: str) -> list[Any]:
    return [part for column in columns for part in (column, column.shown(), column.figures(spoken))]


def _confirm() -> str:
    """JavaScript that asks in the browser's language, and hands the answer to the handler."""
    questions = json.dumps({name: table(name)["chat.confirm_clear"] for name in ("en", "zh")}, ensure_ascii=False)
    return (
        f"() => {{ const asked = new URLSearchParams(location.search).get('lang') ?? navigator.language;"
        f" return [confirm(({questions})[asked.toLowerCase().startsWith('zh') ? 'zh' : 'en'])]; }}"
    )
