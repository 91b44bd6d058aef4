"""The Data tab: bring a dataset, see how it was understood, look at its rows, and know what is wrong with it.

The registered datasets and the places for new ones stand on the left; on the right the chosen dataset, or a file that
is not registered yet. Not here: the panels (studio.ui.data_add, data_file, data_rows, data_audit).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.data import registry
from studio.ui import data_add, data_audit, data_file, data_rows, dataset_view, opened, template_names, to_train
from studio.ui.data_rows import Place
from studio.ui.page import AllWidgets, Page, guarded
from studio.ui.texts import language, t, table

Updates = dict[Any, Any]

CHOOSE = """element.addEventListener("click", (event) => {
  const row = event.target.closest("[data-name]");
  if (row) trigger("select", { name: row.dataset.name });
});"""


@dataclass(frozen=True)
class SetWidgets:
    """One registered dataset. name: which one, kept for this browser. answer: what the browser asked its user."""

    box: gr.Column
    about: gr.HTML
    use: gr.Button
    rename: gr.Button
    remove: gr.Button
    rows: data_rows.Widgets
    audit: data_audit.Widgets
    answer: gr.Textbox
    name: gr.State


@dataclass(frozen=True)
class Widgets:
    """set: the chosen dataset. new: rows that are not registered yet."""

    listing: gr.HTML
    problems: gr.HTML
    add: data_add.Widgets
    set: SetWidgets
    new: data_file.Widgets

    @property
    def shown(self) -> list[Any]:
        """Everything that `shown` may update."""
        of = self.set
        parts = [of.box, self.new.box, of.about, of.use, of.rename, of.remove, of.name]
        return [self.listing, self.problems, *parts, *of.rows.shown, *of.audit.shown]


def build(page: Page) -> Widgets:
    """The list and the places for new rows on the left; on the right the chosen dataset, or the new rows."""
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=5, min_width=320):
            listing = gr.HTML("", elem_id="data-list", js_on_load=CHOOSE)
            problems = gr.HTML("", elem_id="data-problems")
            add = data_add.build()
        with gr.Column(scale=6, min_width=320):
            chosen, new = _build_set(), data_file.build()
    return Widgets(listing, problems, add, chosen, new)


def _build_set() -> SetWidgets:
    with gr.Column(elem_id="data-set-view", min_width=300) as box:
        about = gr.HTML("", elem_id="data-about", min_height=150)
        with gr.Row(elem_classes="actions"):
            use = gr.Button(t("data.use"), variant="primary", elem_id="data-use", scale=0, min_width=130)
            rename = gr.Button(t("data.rename"), elem_id="data-rename", scale=0, min_width=90)
            remove = gr.Button(t("data.remove"), elem_id="data-remove", scale=0, min_width=90)
        rows = data_rows.build()
        made = data_audit.build()
    # outside of the box: gradio 6.31 forgets the properties of a gr.HTML that goes and comes back
    audit = data_audit.with_charts(made)
    return SetWidgets(box, about, use, rename, remove, rows, audit, gr.Textbox(visible=False), gr.State(""))


def wire(page: Page, all: AllWidgets) -> None:
    """Connect the tab's events."""
    widgets: Widgets = all["data"]
    of = widgets.set

    def show(name: str | None, request: gr.Request) -> Updates:
        return shown(page, widgets, name, language(request))

    _wire_list(page, widgets, show)
    _wire_names(widgets, show)
    data_rows.wire(page, of.rows)
    data_audit.wire(page, of.audit, of.name, of.rows, widgets.shown, show)
    aside = {of.box: gr.update(visible=False), **data_audit.emptied(of.audit)}
    chosen = data_file.Chosen(of.name, widgets.shown, show, aside)
    data_add.wire(widgets.add, widgets.new, chosen)
    data_file.wire(widgets.new, chosen, widgets.add.emptied)
    to_train.wire(page, all["train"], of.use, [of.name], ["data.datasets"], in_training, name="data_use")


def in_training(name: str) -> dict[str, Any]:
    """What the Train form holds when it is to train on this dataset."""
    names = [each.name for each in registry.every()]
    return {"data.datasets": gr.update(choices=[(each, each) for each in names], value=[registry.get(name).name])}


def shown(page: Page, widgets: Widgets, name: str | None, spoken: str) -> Updates:
    """The list, and one dataset from its first row on: the named one, else the first."""
    of, datasets = widgets.set, registry.every()
    dataset = registry.get(name) if name else datasets[0]
    return {
        widgets.listing: dataset_view.listing(datasets, dataset.name, spoken),
        widgets.problems: dataset_view.problems(registry.problems()),
        of.box: gr.update(visible=True),
        widgets.new.box: gr.update(visible=False),
        of.about: dataset_view.about(dataset, spoken),
        of.use: gr.update(interactive=dataset.valid > 0),
        of.rename: gr.update(interactive=not dataset.shipped),
        of.remove: gr.update(interactive=not dataset.shipped),
        of.name: dataset.name,
        **data_rows.look(page, of.rows, Place(dataset.name), spoken),
        **data_audit.opened(page, of.audit, dataset, spoken),
    }


def _wire_list(page: Page, widgets: Widgets, show: Any) -> None:
    of = widgets.set
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

    def first(request: gr.Request) -> Updates:
        return show(None, request)

    def refreshed(name: str | None, request: gr.Request) -> Updates:
        """Back in sight: the list anew; a file that is being looked at stays."""
        return {
            widgets.listing: dataset_view.listing(registry.every(), name, language(request)),
            widgets.problems: dataset_view.problems(registry.problems()),
            of.audit.template: gr.update(choices=template_names.plain()),
        }

    def choose(event: gr.EventData, token: str, request: gr.Request) -> Updates:
        shown = show(str(event._data.get("name", "")), request)
        return {**shown, widgets.add.again: gr.update(visible=opened.has_rows(token))}

    page.on_load(first, None, widgets.shown)
    page.tabs["data"].select(
        guarded(refreshed),
        of.name,
        [widgets.listing, widgets.problems, of.audit.template],
        api_name="data_selected",
        **quiet,
    )
    # one after the other, so that the dataset that was chosen last is shown last
    widgets.listing.select(
        guarded(choose), widgets.new.token, [*widgets.shown, widgets.add.again], trigger_mode="multiple",
        concurrency_limit=1, api_name="data_choose", **quiet,
    )  # fmt: skip


def _wire_names(widgets: Widgets, show: Any) -> None:
    of = widgets.set
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

    def rename(name: str, new: str | None, request: gr.Request) -> Updates:
        new = (new or "").strip()
        if not new or new == name:
            return {of.name: name}
        return show(registry.rename(name, new).name, request)

    def remove(name: str, answer: str | None, request: gr.Request) -> Updates:
        if answer != "yes":
            return {of.name: name}
        registry.remove(name)
        return show(None, request)

    asked, out = [of.name, of.answer], widgets.shown
    of.rename.click(guarded(rename), asked, out, js=_ask("rename"), api_name="data_rename", **quiet)
    of.remove.click(guarded(remove), asked, out, js=_ask("remove"), api_name="data_remove", **quiet)


def _ask(what: str) -> str:
    """JavaScript that asks for the new name, or whether to remove, and hands the answer to the handler.

    The name of a dataset is on the server, so the question takes it from the page.
    """
    key = f"data.ask_{what}"
    questions = json.dumps({name: table(name)[key] for name in ("en", "zh")}, ensure_ascii=False)
    answer = "prompt(text, shown) ?? ''" if what == "rename" else "confirm(text) ? 'yes' : ''"
    return f"""(name) => {{
      const question = ({questions})[navigator.language.startsWith("zh") ? "zh" : "en"];
      const shown = document.querySelector("#data-about .dataset-name")?.textContent ?? "";
      const text = question.replace("{{name}}", shown);
      return [name, {answer}];
    }}"""
