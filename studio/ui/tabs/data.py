"""The Data tab: the registered datasets, the rows of one as they are read, and adding a file.

Not here: reading and registering (studio.data), and markup (studio.ui.dataset_view).
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from studio.data import registry
from studio.data.formats import FORMATS
from studio.data.readers import KINDS
from studio.data.registry import Inspection
from studio.errors import StudioError
from studio.ui import dataset_view, run_panel, to_train
from studio.ui.dataset_view import PAGE_ROWS, PARTS
from studio.ui.page import AllWidgets, Page, guarded
from studio.ui.texts import language, say, t, table
from studio.ui.waiting import while_working

NO_COLUMN = ""

CHOOSE = """element.addEventListener("click", (event) => {
  const row = event.target.closest("[data-name]");
  if (row) trigger("select", { name: row.dataset.name });
});"""

SHOW_FILE = """() => setTimeout(() => {
  const box = document.querySelector("#data-file-view");
  if (box && box.getBoundingClientRect().top > innerHeight * 0.6) box.scrollIntoView({ behavior: "smooth" });
}, 100)"""
"""On a narrow screen what was understood stands below the place where the file was chosen."""


@dataclass(frozen=True)
class SetWidgets:
    """One registered dataset. name and start: which one, and the first row in sight, kept for this browser."""

    box: gr.Column
    about: gr.HTML
    rows: gr.HTML
    position: gr.HTML
    previous: gr.Button
    next: gr.Button
    use: gr.Button
    remove: gr.Button
    confirmed: gr.Checkbox
    name: gr.State
    start: gr.State


@dataclass(frozen=True)
class FileWidgets:
    """A file that is not registered yet. parts: the column of each part of the chosen format."""

    box: gr.Column
    understood: gr.HTML
    format: gr.Dropdown
    parts: dict[str, gr.Dropdown]
    name: gr.Textbox
    register: gr.Button
    discard: gr.Button
    problem: gr.HTML
    faults: gr.HTML
    preview: gr.HTML


@dataclass(frozen=True)
class Widgets:
    """status: what is being read, or why it could not be."""

    listing: gr.HTML
    problems: gr.HTML
    file: gr.File
    status: gr.HTML
    set: SetWidgets
    new: FileWidgets

    @property
    def shown(self) -> list[Any]:
        """What `_shown` updates, in its order."""
        of = self.set
        parts = [of.box, self.new.box, of.about, of.rows, of.position, of.previous, of.next, of.use, of.remove]
        return [self.listing, self.problems, *parts, of.name, of.start]

    @property
    def looked(self) -> list[Any]:
        """What `_looked` updates, in its order."""
        of = self.new
        boxes = [self.status, self.set.box, of.box]
        return [*boxes, of.understood, of.format, *of.parts.values(), of.register, of.problem, of.faults, of.preview]


def build(page: Page) -> Widgets:
    """The list and the place for a file on the left; on the right the chosen dataset, or the file."""
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=5, min_width=320):
            listing = gr.HTML("", elem_id="data-list", js_on_load=CHOOSE)
            problems = gr.HTML("", elem_id="data-problems")
            file = gr.File(
                label=t("data.add"), file_types=list(KINDS), file_count="single", height=160, elem_id="data-file"
            )
            status = gr.HTML("", elem_id="data-status")
        with gr.Column(scale=6, min_width=320):
            chosen, new = _build_set(), _build_file()
    return Widgets(listing, problems, file, status, chosen, new)


def wire(page: Page, all: AllWidgets) -> None:
    """Connect the tab's events."""
    widgets: Widgets = all["data"]
    _wire_sets(page, widgets)
    _wire_file(widgets)
    to_train.wire(
        page, all["train"], widgets.set.use, [widgets.set.name], ["data.datasets"], in_training, name="data_use"
    )  # fmt: skip


def in_training(name: str) -> dict[str, Any]:
    """What the Train form holds when it is to train on this dataset."""
    names = [each.name for each in registry.every()]
    return {"data.datasets": gr.update(choices=[(each, each) for each in names], value=[registry.get(name).name])}


def _build_set() -> SetWidgets:
    with gr.Column(elem_id="data-set-view", min_width=300) as box:
        about = gr.HTML("", elem_id="data-about", min_height=120)
        with gr.Row(elem_classes="actions"):
            use = gr.Button(t("data.use"), elem_id="data-use", size="sm", scale=0, min_width=160)
            remove = gr.Button(
                t("data.remove"), elem_id="data-remove", size="sm", visible=False, scale=0, min_width=100
            )
        rows = gr.HTML("", elem_id="data-rows", min_height=200)
        with gr.Row(elem_classes="actions pager"):
            previous = gr.Button(t("data.previous"), elem_id="data-previous", size="sm", scale=0, min_width=100)
            following = gr.Button(t("data.next"), elem_id="data-next", size="sm", scale=0, min_width=100)
            position = gr.HTML("", elem_id="data-position")
    return SetWidgets(
        box, about, rows, position, previous, following, use, remove, gr.Checkbox(visible=False), gr.State(""),
        gr.State(0),
    )  # fmt: skip


def _build_file() -> FileWidgets:
    with gr.Column(visible=False, elem_id="data-file-view", min_width=300) as box:
        understood = gr.HTML("", elem_id="data-understood")
        with gr.Row(elem_classes="form-grid"):
            format = gr.Dropdown(
                list(FORMATS), value=None, label=t("data.format"), info=t("data.format_help"), filterable=False,
                elem_id="data-format", interactive=True,
            )  # fmt: skip
            parts = {
                part: gr.Dropdown(
                    [], value=None, label=t(f"data.part.{part}"), info=t(f"data.part_help.{part}"), visible=False,
                    filterable=False, elem_id=f"data-part-{part}", interactive=True,
                )
                for part in PARTS
            }  # fmt: skip
        with gr.Row(elem_classes="actions"):
            name = gr.Textbox(label=t("data.new_name"), max_lines=1, elem_id="data-name", min_width=180, scale=3)
            register = gr.Button(t("data.register"), variant="primary", elem_id="data-register", min_width=130, scale=2)
            discard = gr.Button(t("data.discard"), elem_id="data-discard", min_width=90, scale=1)
        problem = gr.HTML("", elem_id="data-problem")
        faults = gr.HTML("", elem_id="data-faults", max_height=260)
        preview = gr.HTML("", elem_id="data-preview")
    return FileWidgets(box, understood, format, parts, name, register, discard, problem, faults, preview)


# --- registered datasets


def _wire_sets(page: Page, widgets: Widgets) -> None:
    of = widgets.set
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

    def opened(request: gr.Request) -> list[Any]:
        return _shown(None, 0, request)

    def refreshed(name: str | None, request: gr.Request) -> list[Any]:
        """Back in sight: the list anew; a file that is being looked at stays."""
        datasets = registry.every()
        return [
            dataset_view.listing(datasets, name, language(request)),
            dataset_view.problems(registry.problems()),
        ]

    def choose(event: gr.EventData, request: gr.Request) -> list[Any]:
        return _shown(str(event._data.get("name", "")), 0, request)

    def earlier(name: str, start: int, request: gr.Request) -> list[Any]:
        return _shown(name, start - PAGE_ROWS, request)

    def later(name: str, start: int, request: gr.Request) -> list[Any]:
        return _shown(name, start + PAGE_ROWS, request)

    def remove(name: str, confirmed: bool, request: gr.Request) -> list[Any]:
        if not confirmed:
            return [gr.skip()] * len(widgets.shown)
        registry.remove(name)
        return _shown(None, 0, request)

    page.on_load(opened, None, widgets.shown)
    page.tabs["data"].select(
        guarded(refreshed), of.name, [widgets.listing, widgets.problems], api_name="data_selected", **quiet
    )
    # one after the other, so that the dataset that was chosen last is shown last
    widgets.listing.select(
        guarded(choose), None, widgets.shown, trigger_mode="multiple", concurrency_limit=1, api_name="data_choose",
        **quiet,
    )  # fmt: skip
    for button, fn, name in ((of.previous, earlier, "data_previous"), (of.next, later, "data_next")):
        button.click(guarded(fn), [of.name, of.start], widgets.shown, api_name=name, **quiet)
    of.remove.click(
        guarded(remove), [of.name, of.confirmed], widgets.shown, js=_confirm(), api_name="data_remove", **quiet
    )


def _shown(name: str | None, start: int, request: gr.Request) -> list[Any]:
    """The list, and a page of the rows of one dataset: the named one, else the first."""
    spoken = language(request)
    datasets = registry.every()
    dataset = registry.get(name) if name else datasets[0]
    most = min(dataset.rows, registry.PREVIEW_ROWS)
    start = max(0, min(start, (most - 1) // PAGE_ROWS * PAGE_ROWS))
    try:
        rows = registry.rows(dataset, start, min(PAGE_ROWS, most - start))
        shown = dataset_view.rows(dataset_view.readings(rows, dataset_view.how(dataset)), spoken)
    except StudioError as error:
        rows, shown = [], run_panel.problem(str(error))
    return [
        dataset_view.listing(datasets, dataset.name, spoken),
        dataset_view.problems(registry.problems()),
        gr.update(visible=True),
        gr.update(visible=False),
        dataset_view.about(dataset, spoken),
        shown,
        dataset_view.position(start, len(rows), dataset.rows, spoken),
        gr.update(interactive=start > 0),
        gr.update(interactive=start + PAGE_ROWS < most),
        gr.update(interactive=bool(rows)),
        gr.update(visible=not dataset.shipped),
        dataset.name,
        start,
    ]


def _confirm() -> str:
    """JavaScript that asks in the browser's language, and hands the answer to the handler.

    The name of a dataset is on the server, so the question takes it from the page.
    """
    questions = json.dumps({name: table(name)["data.confirm_remove"] for name in ("en", "zh")}, ensure_ascii=False)
    return f"""(name) => {{
      const question = ({questions})[navigator.language.startsWith("zh") ? "zh" : "en"];
      const shown = document.querySelector("#data-about .dataset-name")?.textContent ?? "";
      return [name, confirm(question.replace("{{name}}", shown))];
    }}"""


# --- a file


def _wire_file(widgets: Widgets) -> None:
    of = widgets.new
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    mapped = [of.format, *of.parts.values()]

    def took(path: str | None, request: gr.Request) -> Iterator[list[Any]]:
        if path is None:
            return
        taken = [each.name for each in registry.every()]
        yield [*[gr.skip()] * len(widgets.looked), dataset_view.suggested_name(Path(path).name, taken)]
        for update in _look(path, None, None, request, len(widgets.looked)):
            yield [*update, gr.skip()]

    def other_format(path: str | None, format: str, request: gr.Request) -> Iterator[list[Any]]:
        yield from _look(path, format, None, request, len(widgets.looked))

    def other_columns(request: gr.Request, path: str | None, format: str, *columns: str | None) -> Iterator[list[Any]]:
        yield from _look(path, format, _mapping(format, columns), request, len(widgets.looked))

    def register(request: gr.Request, path: str | None, name: str, format: str, *columns: str | None) -> Iterator[Any]:
        yield from _register(path, name, format, _mapping(format, columns), request, len(widgets.shown))

    looked: dict[str, Any] = {"outputs": widgets.looked, **quiet}
    widgets.file.upload(
        guarded(took), widgets.file, [*widgets.looked, of.name], api_name="data_upload", **quiet
    ).success(None, None, None, js=SHOW_FILE, api_visibility="private")
    of.format.input(guarded(other_format), [widgets.file, of.format], api_name="data_format", **looked)
    gr.on(
        [part.input for part in of.parts.values()],
        guarded(other_columns), [widgets.file, *mapped], api_name="data_columns", trigger_mode="always_last", **looked,
    )  # fmt: skip
    of.register.click(
        guarded(register), [widgets.file, of.name, *mapped], [of.problem, widgets.file, *widgets.shown],
        trigger_mode="once", api_name="data_register", **quiet,
    )  # fmt: skip
    gr.on(
        [widgets.file.clear, of.discard.click],
        lambda: [gr.update(visible=True), gr.update(visible=False), None, ""],
        None, [widgets.set.box, of.box, widgets.file, widgets.status], api_name="data_discard", **quiet,
    )  # fmt: skip


def _mapping(format: str | None, columns: Sequence[str | None]) -> dict[str, str]:
    """The chosen column of each part of the format; an empty text where it has none."""
    own = FORMATS[format].columns if format in FORMATS else ()
    return {part: column or NO_COLUMN for part, column in zip(PARTS, columns, strict=True) if part in own}


def _look(
    path: str | None, format: str | None, columns: dict[str, str] | None, request: gr.Request, width: int
) -> Iterator[list[Any]]:
    """Updates while a file is read, and then of what is in it, or why it cannot be read."""
    if path is None:
        return
    rest = [gr.skip()] * (width - 1)
    try:
        found = yield from while_working(
            lambda: registry.inspect(Path(path), format=format or None, columns=columns),
            lambda seconds: [_reading(path, seconds, request), *rest],
        )
    except StudioError as error:
        fresh = [gr.update(visible=True), gr.update(visible=False)] if format is None else rest[:2]
        yield [run_panel.problem(str(error)), *fresh, *rest[2:]]
        return
    yield _looked(Path(path).name, found, request, by_hand=format is not None)


def _looked(file_name: str, found: Inspection, request: gr.Request, *, by_hand: bool) -> list[Any]:
    spoken = language(request)
    read = dataset_view.readings(found.preview[:PAGE_ROWS], found.detection)
    return [
        "",
        gr.update(visible=False),
        gr.update(visible=True),
        dataset_view.understood(file_name, found, spoken, by_hand=by_hand),
        found.detection.format,
        *(_part(part, found, spoken) for part in PARTS),
        gr.update(interactive=found.valid > 0),
        "",
        dataset_view.faults(found, spoken),
        dataset_view.rows(read, spoken),
    ]


def _part(part: str, found: Inspection, spoken: str) -> Any:
    """The dropdown of a part: shown if the format has it, with none as a choice if it can do without."""
    format = FORMATS.get(found.detection.format or "")
    if format is None or part not in format.columns:
        return gr.update(visible=False, choices=[], value=None)
    column = found.detection.columns.get(part)
    none = [] if part in format.needed and column else [(table(spoken)["data.no_column"], NO_COLUMN)]
    choices = [*((name, name) for name in found.columns), *none]
    return gr.update(visible=True, choices=choices, value=column if column in found.columns else NO_COLUMN)


def _reading(path: str, seconds: float, request: gr.Request) -> str:
    size = f"{Path(path).stat().st_size / 1e6:,.1f} MB"
    text = say("data.reading", request, file=Path(path).name, size=size, seconds=f"{seconds:.0f}")
    return f'<p class="quiet" role="status">{html.escape(text)}</p>'


def _register(
    path: str | None, name: str, format: str, columns: dict[str, str], request: gr.Request, width: int
) -> Iterator[list[Any]]:
    """Updates while a file is registered, and then the new dataset; or why it was refused, beside the button."""
    rest = [gr.skip()] * (width + 1)
    if path is None:
        return
    try:
        dataset = yield from while_working(
            lambda: registry.add(path, (name or "").strip(), format=format, columns=columns),
            lambda seconds: [_reading(path, seconds, request), *rest],
        )
    except StudioError as error:
        yield [run_panel.problem(str(error)), *rest]
        return
    yield ["", None, *_shown(dataset.name, 0, request)]
