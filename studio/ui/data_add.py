"""Where rows come from: uploaded files, a place on this machine, or the hub; with progress, and a way to stop.

A LLaMA-Factory data folder is registered whole; everything else is looked at first (studio.ui.data_file). Nothing is
fetched but what the user typed. Not here: reading (studio.data.intake, imports).
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from studio.data import imports, intake, registry
from studio.data.intake import Intake, Stopped, Watch
from studio.data.readers import KINDS
from studio.errors import StudioError
from studio.ui import data_file, dataset_view, intake_view, opened, run_panel
from studio.ui.data_file import STOP_S, Chosen, Updates
from studio.ui.page import guarded
from studio.ui.texts import language, t, table

SHOW_FILE = """() => setTimeout(() => {
  const box = document.querySelector("#data-file-view");
  if (box && box.getBoundingClientRect().top > innerHeight * 0.6) box.scrollIntoView({ behavior: "smooth" });
}, 100)"""
"""On a narrow screen what was understood stands below the place where the file was chosen."""


@dataclass(frozen=True)
class Widgets:
    """status: what is being read, or why it could not be. Of the hub: repo is an id such as owner/name.

    again: back to a file that is open behind a dataset that was chosen since.
    """

    file: gr.File
    place: gr.Textbox
    read: gr.Button
    repo: gr.Textbox
    subset: gr.Textbox
    split: gr.Textbox
    fetch: gr.Button
    status: gr.HTML
    stop: gr.Button
    again: gr.Button

    @property
    def emptied(self) -> Updates:
        """Updates for when what was chosen is registered or discarded."""
        return {self.file: None, self.status: "", self.again: gr.update(visible=False)}


def build() -> Widgets:
    """The place for files, the other sources folded below it."""
    made: dict[str, Any] = {}
    made["file"] = gr.File(
        label=t("data.add"), file_types=list(KINDS), file_count="multiple", height=160, elem_id="data-file"
    )
    gr.Markdown(t("data.add_help"), elem_classes="quiet small")
    made["status"] = gr.HTML("", elem_id="data-status")
    made["stop"] = gr.Button(t("data.stop"), elem_id="data-stop", size="sm", visible=False)
    made["again"] = gr.Button(t("data.again"), elem_id="data-again", size="sm", visible=False)
    with gr.Accordion(t("data.elsewhere"), open=False, elem_id="data-elsewhere", elem_classes="fold"):
        with gr.Row(elem_classes="actions"):
            made["place"] = gr.Textbox(
                label=t("data.place"), info=t("data.place_help"), max_lines=1, elem_id="data-place", scale=4,
                min_width=200,
            )  # fmt: skip
            made["read"] = gr.Button(t("data.read"), elem_id="data-read", scale=1, min_width=90)
        with gr.Row(elem_classes="actions"):
            made["repo"] = gr.Textbox(
                label=t("data.repo"), info=t("data.repo_help"), max_lines=1, elem_id="data-repo", scale=4,
                min_width=200,
            )  # fmt: skip
        with gr.Row(elem_classes="actions"):
            made["subset"] = gr.Textbox(
                label=t("data.subset"), placeholder=t("data.subset_help"), max_lines=1, elem_id="data-subset",
                scale=2, min_width=100,
            )  # fmt: skip
            made["split"] = gr.Textbox(
                label=t("data.split"), placeholder="train", max_lines=1, elem_id="data-split", scale=2, min_width=100
            )
            made["fetch"] = gr.Button(t("data.fetch"), elem_id="data-fetch", scale=1, min_width=90)
    return Widgets(**made)


def wire(widgets: Widgets, panel: data_file.Widgets, chosen: Chosen) -> None:
    """Connect the events. panel: where a file is looked at before it is registered."""
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    opening = _Opening(widgets, panel, chosen)
    out = list(dict.fromkeys([*panel.shown, widgets.status, widgets.stop, widgets.file, widgets.again, *chosen.shown]))

    def uploaded(files: list[str] | None, token: str, name: str, request: gr.Request) -> Iterator[Updates]:
        if not files:
            return
        names = [Path(each).name for each in files]
        title = names[0] if len(names) == 1 else table(language(request))["data.files"].format(count=len(names))
        now = _Now(token, name, request)
        yield from opening.rows(
            lambda watch: intake.take_in(list(files), uploaded=True, watch=watch), title, files, now
        )

    def read(place: str | None, token: str, name: str, request: gr.Request) -> Iterator[Updates]:
        text = (place or "").strip()
        if not text:
            return
        now = _Now(token, name, request)
        path = Path(text).expanduser() if "://" not in text else None
        if path is not None and imports.described(path):
            yield from opening.folder(path, now)
            return
        source = str(path) if path is not None else text
        yield from opening.rows(lambda watch: intake.take_in(source, watch=watch), Path(source).name, [source], now)

    def fetch(
        repo: str | None, subset: str | None, split: str | None, token: str, name: str, request: gr.Request
    ) -> Iterator[Updates]:
        wanted = (repo or "").strip()
        if not wanted:
            return
        part = {"subset": (subset or "").strip() or None, "split": (split or "").strip() or None}
        now = _Now(token, name, request)
        yield from opening.rows(lambda watch: imports.from_hub(wanted, **part, watch=watch), wanted, [], now)

    def cleared(token: str, name: str, request: gr.Request) -> Updates:
        opened.forget(token)
        return {
            **data_file.closed(panel),
            **chosen.back(token, name, request),
            **widgets.emptied,
            widgets.stop: gr.update(visible=False),
        }

    def again(token: str, request: gr.Request) -> Updates:
        return {
            **chosen.aside, **data_file.looked(panel, token, language(request)), widgets.again: gr.update(visible=False)
        }  # fmt: skip

    of = [panel.token, chosen.name]
    started = [
        widgets.file.upload(
            guarded(uploaded), [widgets.file, *of], out, trigger_mode="multiple", api_name="data_upload", **quiet
        ),
        gr.on(
            [widgets.read.click, widgets.place.submit], guarded(read), [widgets.place, *of], out, trigger_mode="once",
            api_name="data_read", **quiet,
        ),
        gr.on(
            [widgets.fetch.click, widgets.repo.submit], guarded(fetch),
            [widgets.repo, widgets.subset, widgets.split, *of], out, trigger_mode="once", api_name="data_fetch",
            **quiet,
        ),
    ]  # fmt: skip
    for event in started:
        event.success(None, None, None, js=SHOW_FILE, api_visibility="private")
    widgets.stop.click(opened.stop, panel.token, None, api_name="data_stop", **quiet)
    widgets.again.click(guarded(again), panel.token, out, api_name="data_again", **quiet).success(
        None, None, None, js=SHOW_FILE, api_visibility="private"
    )
    widgets.file.clear(guarded(cleared), of, out, api_name="data_clear", **quiet)


@dataclass(frozen=True)
class _Now:
    """Who asks. token: of what was open before. name: of the chosen dataset."""

    token: str
    name: str
    request: gr.Request


@dataclass(frozen=True)
class _Opening:
    """Takes rows in for a page, telling how far it is."""

    widgets: Widgets
    panel: data_file.Widgets
    chosen: Chosen

    def rows(self, work: Callable[[Watch], Intake], title: str, files: Sequence[str], now: _Now) -> Iterator[Updates]:
        """Take rows in and show what they are."""
        spoken = language(now.request)
        opened.forget(now.token)
        token = opened.start(files)
        yield {self.panel.token: token, self.widgets.status: ""}
        try:
            taken = yield from opened.passing(token, work, self._told(title, spoken))
        except StudioError as error:
            yield self._ended(token, error, now)
            return
        if not opened.is_open(token):  # something else was chosen meanwhile
            taken.discard()
            return
        opened.get(token).intake = taken
        names = [each.name for each in registry.every()]
        yield {
            **self.chosen.aside,
            **data_file.looked(self.panel, token, spoken),
            self.panel.name: dataset_view.suggested_name(taken.title, names),
            **self._quiet(""),
        }

    def folder(self, path: Path, now: _Now) -> Iterator[Updates]:
        """Register every usable entry of a LLaMA-Factory data folder, and list the others with their reasons."""
        spoken = language(now.request)
        opened.forget(now.token)
        token = opened.start()
        yield {self.panel.token: token, self.widgets.status: ""}
        try:
            found = yield from opened.passing(
                token, lambda watch: imports.folder(path, watch=watch), self._told(path.name, spoken)
            )
        except StudioError as error:
            yield self._ended(token, error, now)
            return
        opened.forget(token)
        first = next((each.dataset.name for each in found if each.dataset is not None), now.name)
        yield {
            **data_file.closed(self.panel),
            **self.chosen.show(first, now.request),
            **self._quiet(intake_view.outcomes(found, spoken)),
        }

    def _told(self, title: str, spoken: str) -> Callable[..., Updates]:
        return lambda done, seconds: {
            self.widgets.status: intake_view.progress(title, done, seconds, spoken),
            self.widgets.stop: gr.update(visible=seconds > STOP_S),
        }

    def _ended(self, token: str, error: StudioError, now: _Now) -> Updates:
        """What stands in the way, unless something else was chosen meanwhile."""
        if not opened.is_open(token):
            return {self.widgets.stop: gr.skip()}
        opened.forget(token)
        calm = isinstance(error, Stopped)
        told = f"<p class='note' role='status'>{html.escape(str(error))}</p>" if calm else run_panel.problem(str(error))
        return {
            **data_file.closed(self.panel),
            **self.chosen.back(now.token, now.name, now.request),
            **self._quiet(told),
        }

    def _quiet(self, status: str) -> Updates:
        away = gr.update(visible=False)
        return {self.widgets.status: status, self.widgets.stop: away, self.widgets.again: away}
