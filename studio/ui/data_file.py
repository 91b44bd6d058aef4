"""A file that is not registered yet: how it was understood, another reading of it, its faults, and registering it.

Not here: where it comes from (studio.ui.data_add), reading it (studio.data.intake), markup (studio.ui.intake_view).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from studio.data import faults, intake, registry, sources
from studio.data.formats import FORMATS
from studio.data.intake import Intake, Stopped
from studio.errors import StudioError
from studio.home import home
from studio.ui import intake_view, opened, row_view, run_panel
from studio.ui.dataset_view import PARTS, TAGS
from studio.ui.page import guarded
from studio.ui.row_view import PAGE_ROWS
from studio.ui.texts import language, t, table

NO_COLUMN = ""
UNITS = ("line", "paragraph", "file")
STOP_S = 1.0
"""Seconds after which a pass can be stopped; what is quicker shows no button."""

Updates = dict[Any, Any]

CLICK_LINK = "() => setTimeout(() => document.querySelector('#data-faults-file').click(), 300)"


@dataclass(frozen=True)
class Chosen:
    """The chosen dataset, which stands where a file stands while one is open.

    name: of it. show(name, request): updates of `shown`. aside: updates that make room for a file.
    """

    name: gr.State
    shown: list[Any]
    show: Callable[[str, gr.Request], Updates]
    aside: Updates

    def back(self, token: str, name: str, request: gr.Request) -> Updates:
        """Updates that show it again, if a file was open under the token; else it is in sight, and stays as it is."""
        return self.show(name, request) if token else {}


@dataclass(frozen=True)
class Widgets:
    """parts: the column of each part of the chosen format. tags: its words. token: of what is open, or empty.

    by_hand: whether the reading was chosen. unit: visible for plain text. file: hidden; holds the copy to download.
    """

    box: gr.Column
    understood: gr.HTML
    format: gr.Dropdown
    unit: gr.Dropdown
    parts: dict[str, gr.Dropdown]
    words: gr.Accordion
    tags: dict[str, gr.Textbox]
    name: gr.Textbox
    register: gr.Button
    discard: gr.Button
    stop: gr.Button
    problem: gr.HTML
    faults: gr.HTML
    download: gr.Button
    file: gr.DownloadButton
    preview: gr.HTML
    token: gr.State

    @property
    def shown(self) -> list[Any]:
        """Everything that `looked` may update."""
        texts = [self.understood, self.problem, self.faults, self.preview]
        choices = [self.format, self.unit, *self.parts.values(), self.words, *self.tags.values()]
        return [self.box, *texts, *choices, self.name, self.register, self.stop, self.download, self.token]


def build() -> Widgets:
    """What was understood, the choices, the name, what is wrong, and the first rows as the model sees them."""
    made: dict[str, Any] = {"token": gr.State("", delete_callback=opened.forget)}
    # outside of the box, because gradio 6.31 shows hidden parts of a column that becomes visible
    made["file"] = gr.DownloadButton(visible="hidden", elem_id="data-faults-file")
    with gr.Column(visible=False, elem_id="data-file-view", min_width=300) as made["box"]:
        made["understood"] = gr.HTML("", elem_id="data-understood")
        with gr.Row(elem_classes="actions"):
            made["name"] = gr.Textbox(
                label=t("data.new_name"), max_lines=1, elem_id="data-name", min_width=180, scale=3
            )
            made["register"] = gr.Button(
                t("data.register"), variant="primary", elem_id="data-register", min_width=130, scale=2
            )
            made["discard"] = gr.Button(t("data.discard"), elem_id="data-discard", min_width=90, scale=1)
            made["stop"] = gr.Button(t("data.stop"), elem_id="data-mapping-stop", visible=False, min_width=80, scale=1)
        made["problem"] = gr.HTML("", elem_id="data-problem")
        _build_mapping(made)
        made["faults"] = gr.HTML("", elem_id="data-faults", max_height=320)
        with gr.Row(elem_classes="actions"):
            made["download"] = gr.Button(
                t("data.download_faults"), elem_id="data-faults-download", size="sm", visible=False, scale=0,
                min_width=240,
            )  # fmt: skip
        gr.Markdown(t("data.first_rows"), elem_classes="section")
        made["preview"] = gr.HTML("", elem_id="data-preview")
    return Widgets(**made)


def _build_mapping(made: dict[str, Any]) -> None:
    with gr.Row(elem_classes="form-grid"):
        made["format"] = gr.Dropdown(
            list(FORMATS), value=None, label=t("data.format"), info=t("data.format_help"), filterable=False,
            elem_id="data-format", interactive=True,
        )  # fmt: skip
        made["unit"] = gr.Dropdown(
            list(UNITS), value=UNITS[0], label=t("data.unit"), info=t("data.unit_help"), filterable=False,
            elem_id="data-unit", visible=False, interactive=True,
        )  # fmt: skip
        made["parts"] = {
            part: gr.Dropdown(
                [], value=None, label=t(f"data.part.{part}"), info=t(f"data.part_help.{part}"), visible=False,
                allow_custom_value=True, elem_id=f"data-part-{part}", interactive=True,
            )
            for part in PARTS
        }  # fmt: skip
    made["words"] = gr.Accordion(
        t("data.words"), open=False, visible=False, elem_id="data-words", elem_classes="fold"
    )  # fmt: skip
    with made["words"], gr.Row(elem_classes="form-grid"):
        made["tags"] = {
            tag: gr.Textbox(
                label=t(f"data.tag.{tag}"), max_lines=1, visible=False, elem_id=f"data-tag-{tag}", interactive=True
            )
            for tag in TAGS
        }


def wire(widgets: Widgets, chosen: Chosen, emptied: Updates) -> None:
    """Connect the panel's events. emptied: updates of what the file was chosen with."""
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    out = list(dict.fromkeys([*widgets.shown, *emptied, *chosen.shown]))
    asked = [widgets.token, widgets.format, *widgets.parts.values(), *widgets.tags.values()]

    def other_format(token: str, format: str, request: gr.Request) -> Iterator[Updates]:
        yield from _mapped(widgets, token, format, None, None, request)

    def other_mapping(request: gr.Request, token: str, format: str, *values: str | None) -> Iterator[Updates]:
        columns, tags = values[: len(PARTS)], values[len(PARTS) :]
        yield from _mapped(widgets, token, format, mapping(format, columns), words(format, tags), request)

    def other_unit(token: str, unit: str, request: gr.Request) -> Iterator[Updates]:
        yield from _read_again(widgets, token, unit, request)

    def register(request: gr.Request, token: str, name: str) -> Updates:
        try:
            dataset = registry.register(opened.rows(token), (name or "").strip())
        except StudioError as error:
            return {widgets.problem: run_panel.problem(str(error))}
        opened.forget(token)
        return {**closed(widgets), **emptied, **chosen.show(dataset.name, request)}

    def discard(token: str, name: str, request: gr.Request) -> Updates:
        opened.forget(token)
        return {**closed(widgets), **emptied, **chosen.back(token, name, request)}

    def download(token: str, request: gr.Request) -> Iterator[Updates]:
        yield from _faults_as_file(widgets, token, request)

    widgets.format.input(guarded(other_format), [widgets.token, widgets.format], out, api_name="data_format", **quiet)
    widgets.unit.input(guarded(other_unit), [widgets.token, widgets.unit], out, api_name="data_unit", **quiet)
    gr.on(
        [*(part.input for part in widgets.parts.values()), *(tag.submit for tag in widgets.tags.values()),
         *(tag.blur for tag in widgets.tags.values())],
        guarded(other_mapping), asked, out, api_name="data_columns", trigger_mode="always_last", **quiet,
    )  # fmt: skip
    widgets.stop.click(opened.stop, widgets.token, None, api_name="data_mapping_stop", **quiet)
    widgets.register.click(
        guarded(register), [widgets.token, widgets.name], out, trigger_mode="once", api_name="data_register", **quiet
    )
    widgets.discard.click(guarded(discard), [widgets.token, chosen.name], out, api_name="data_discard", **quiet)
    widgets.download.click(
        guarded(download), widgets.token, [widgets.problem, widgets.stop, widgets.file], api_name="data_faults", **quiet
    ).success(None, None, None, js=CLICK_LINK, api_visibility="private")


def looked(widgets: Widgets, token: str, spoken: str) -> Updates:
    """Updates that show what is open under a token."""
    here, taken = opened.get(token), opened.rows(token)
    found = taken.inspection
    how = found.detection
    first = faults.rows(taken.path, taken.sources, found.faults[: intake_view.SHOWN_FAULTS])
    format = FORMATS.get(how.format or "")
    tags = format.tags if format else {}
    return {
        widgets.box: gr.update(visible=True),
        widgets.token: token,
        widgets.understood: intake_view.understood(taken, spoken, by_hand=here.by_hand),
        widgets.format: how.format,
        widgets.unit: gr.update(visible=_is_text(taken), choices=_units(spoken), value=here.unit),
        **{widget: _part(part, taken, spoken) for part, widget in widgets.parts.items()},
        widgets.words: gr.update(visible=bool(tags)),
        **{
            widget: gr.update(visible=tag in tags, value=how.tags.get(tag, tags.get(tag, "")))
            for tag, widget in widgets.tags.items()
        },
        widgets.register: gr.update(interactive=found.valid > 0),
        widgets.stop: gr.update(visible=False),
        widgets.problem: "",
        widgets.faults: intake_view.faults(found, first, spoken),
        widgets.download: gr.update(visible=bool(found.faults_total)),
        widgets.preview: _preview(taken, spoken),
    }


def closed(widgets: Widgets) -> Updates:
    """Updates for when nothing is open."""
    texts = (widgets.understood, widgets.problem, widgets.faults, widgets.preview, widgets.token)
    return {widgets.box: gr.update(visible=False), widgets.stop: gr.update(visible=False), **dict.fromkeys(texts, "")}


def mapping(format: str | None, columns: Sequence[str | None]) -> dict[str, str]:
    """The chosen column of each part of the format; an empty text where it has none."""
    own = FORMATS[format].columns if format in FORMATS else ()
    return {part: (column or NO_COLUMN).strip() for part, column in zip(PARTS, columns, strict=True) if part in own}


def words(format: str | None, tags: Sequence[str | None]) -> dict[str, str]:
    """The chosen words of the format."""
    own = FORMATS[format].tags if format in FORMATS else ()
    return {tag: (word or "").strip() for tag, word in zip(TAGS, tags, strict=True) if tag in own}


# --- passes over the rows


def _mapped(
    widgets: Widgets,
    token: str,
    format: str,
    columns: dict[str, str] | None,
    tags: dict[str, str] | None,
    request: gr.Request,
) -> Iterator[Updates]:
    """Read the rows in another way. The first ones are shown in it while the rest is counted."""
    spoken, taken = language(request), opened.rows(token)
    how = taken.inspection.detection
    if format == how.format and columns is not None and _same(how, columns, tags, format):
        return
    try:
        seen = intake.chosen(taken.inspection.preview, format, columns, tags)
        start = replace(taken, inspection=replace(taken.inspection, detection=seen))
        opened.get(token).intake = yield from opened.passing(
            token,
            lambda watch: taken.mapped(format=format, columns=columns, tags=tags, watch=watch),
            lambda done, seconds: {
                widgets.problem: intake_view.progress(taken.title, done, seconds, spoken),
                widgets.stop: gr.update(visible=seconds > STOP_S),
                widgets.preview: _preview(start, spoken),
            },
        )
    except Stopped:
        yield {**looked(widgets, token, spoken), widgets.problem: _quiet(table(spoken)["data.stopped_mapping"])}
        return
    except StudioError as error:
        yield {widgets.problem: run_panel.problem(str(error)), widgets.stop: gr.update(visible=False)}
        return
    opened.get(token).by_hand = True
    yield looked(widgets, token, spoken)


def _read_again(widgets: Widgets, token: str, unit: Any, request: gr.Request) -> Iterator[Updates]:
    """Read the files anew with another unit of plain text."""
    spoken, before, here = language(request), opened.rows(token), opened.get(token)
    try:
        taken = yield from opened.passing(
            token,
            lambda watch: intake.take_in(list(here.files), unit=unit, uploaded=not before.sources[0].path, watch=watch),
            lambda done, seconds: {
                widgets.problem: intake_view.progress(before.title, done, seconds, spoken),
                widgets.stop: gr.update(visible=seconds > STOP_S),
            },
        )
    except StudioError as error:
        yield {widgets.problem: run_panel.problem(str(error)), widgets.stop: gr.update(visible=False)}
        return
    here.intake, here.unit, here.by_hand = taken, unit, False
    before.discard()
    yield looked(widgets, token, spoken)


def _faults_as_file(widgets: Widgets, token: str, request: gr.Request) -> Iterator[Updates]:
    """Every faulty row in one file under exports/, the only folder whose files the page hands out."""
    taken, spoken = opened.rows(token), language(request)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", taken.title).strip("-._")[:60] or "rows"
    target = home().exports / f"{stem}-faults.jsonl"
    found = taken.inspection
    yield from opened.passing(
        token,
        lambda watch: faults.write(taken.path, found.detection, target, total=found.rows, watch=watch),
        lambda done, seconds: {
            widgets.problem: intake_view.progress(taken.title, done, seconds, spoken),
            widgets.stop: gr.update(visible=seconds > STOP_S),
        },
    )
    yield {widgets.problem: "", widgets.stop: gr.update(visible=False), widgets.file: gr.update(value=str(target))}


# --- one widget


def _same(how: Any, columns: dict[str, str], tags: dict[str, str] | None, format: str) -> bool:
    """Whether a box was only left, and nothing changed in it."""
    given = {part: column for part, column in columns.items() if column}
    said = {**FORMATS[format].tags, **how.tags}
    return given == dict(how.columns) and (tags or {}) == said


def _part(part: str, taken: Intake, spoken: str) -> Any:
    """The box of a part: shown if the format has it, with none as a choice if it can do without."""
    found = taken.inspection
    format = FORMATS.get(found.detection.format or "")
    if format is None or part not in format.columns:
        return gr.update(visible=False, choices=[], value=None)
    column = found.detection.columns.get(part, NO_COLUMN)
    none = [] if part in format.needed and column else [(table(spoken)["data.no_column"], NO_COLUMN)]
    return gr.update(visible=True, choices=[*((name, name) for name in found.columns), *none], value=column)


def _units(spoken: str) -> list[tuple[str, str]]:
    return [(table(spoken)[f"data.units.{unit}"], unit) for unit in UNITS]


def _is_text(taken: Intake) -> bool:
    """Whether the rows are parts of plain text, of which there is more than one kind."""
    return bool(taken.sources) and all(sources.named(Path(each.name))[0] == "txt" for each in taken.sources)


def _preview(taken: Intake, spoken: str) -> str:
    found = taken.inspection
    read = row_view.readings(list(enumerate(found.preview[:PAGE_ROWS])), found.detection)
    return row_view.rows(read, spoken)


def _quiet(text: str) -> str:
    return f"<p class='note' role='status'>{text}</p>"
