"""The row browser: pages through a dataset of any size, goes to a row, searches, and shows what an audit found.

The place where a browser stands is one frozen value in its session. Not here: how a row looks (studio.ui.row_view).
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import gradio as gr

from studio.data import registry
from studio.data.example import Row
from studio.data.registry import Dataset
from studio.errors import StudioError
from studio.ui import audits, row_view, run_panel
from studio.ui.audits import Audit
from studio.ui.page import Page, guarded
from studio.ui.row_view import PAGE_ROWS
from studio.ui.texts import language, t, table
from studio.ui.waiting import while_working

ALL = ""
"""The choice of findings that stands for every row."""
VIEWS = ("learned", "file")

Updates = dict[Any, Any]


@dataclass(frozen=True)
class Place:
    """Where a browser stands in the rows of a dataset.

    start: a position in the dataset, or for findings the how-manyth of them; from 0. trail: earlier starts of a search,
    whose pages lie unevenly. raw: rows as in the file.
    """

    name: str = ""
    by: Literal["all", "search", "finding"] = "all"
    key: str = ""
    start: int = 0
    trail: tuple[int, ...] = ()
    raw: bool = False


@dataclass(frozen=True)
class Widgets:
    """place: a Place. next_start: where the next page begins, or None at the end."""

    search: gr.Textbox
    goto: gr.Textbox
    finding: gr.Dropdown
    view: gr.Radio
    rows: gr.HTML
    position: gr.HTML
    previous: gr.Button
    next: gr.Button
    place: gr.State
    next_start: gr.State

    @property
    def shown(self) -> list[Any]:
        """Everything that `look` may update."""
        boxes = [self.search, self.goto, self.finding, self.view]
        return [*boxes, self.rows, self.position, self.previous, self.next, self.place, self.next_start]


def build() -> Widgets:
    """The boxes above, the rows in a place of constant height, the pager below."""
    gr.Markdown(t("data.browse"), elem_classes="section")
    with gr.Row(elem_classes="form-grid browse"):
        search = gr.Textbox(
            label=t("data.search"), placeholder=t("data.search_help"), max_lines=1, elem_id="data-search"
        )
        finding = gr.Dropdown([], value=None, label=t("data.show"), filterable=False, elem_id="data-finding")
        # gradio shows an empty Number as 0
        goto = gr.Textbox(label=t("data.goto"), max_lines=1, elem_id="data-goto")
    view = gr.Radio(list(VIEWS), value=VIEWS[0], show_label=False, container=False, elem_id="data-view")
    rows = gr.HTML("", elem_id="data-rows", min_height=480)
    with gr.Row(elem_classes="actions pager"):
        previous = gr.Button(t("data.previous"), elem_id="data-previous", size="sm", scale=0, min_width=100)
        following = gr.Button(t("data.next"), elem_id="data-next", size="sm", scale=0, min_width=100)
        position = gr.HTML("", elem_id="data-position")
    return Widgets(
        search, goto, finding, view, rows, position, previous, following, gr.State(Place()), gr.State(None)
    )  # fmt: skip


def wire(page: Page, widgets: Widgets) -> None:
    """Connect the browser's events."""
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

    def search(place: Place, text: str | None, request: gr.Request) -> Iterator[Updates]:
        text = text or ""
        if not text.strip():
            text, by = "", "all"
        else:
            by = "search"
        asked = Place(place.name, by, text, raw=place.raw)  # type: ignore[arg-type]
        updates = yield from while_working(
            lambda: look(page, widgets, asked, language(request)),
            lambda seconds: {widgets.position: _searching(seconds, language(request))},
        )
        yield updates

    def finding(place: Place, kind: str | None, request: gr.Request) -> Updates:
        by = "finding" if kind else "all"
        return look(page, widgets, Place(place.name, by, kind or "", raw=place.raw), language(request))  # type: ignore[arg-type]

    def goto(place: Place, number: str | None, request: gr.Request) -> Updates:
        digits = (number or "").replace(",", "").strip()
        if not digits.isdecimal():
            return {widgets.goto: ""}
        start = max(0, int(digits[:12]) - 1)
        return look(page, widgets, Place(place.name, start=start, raw=place.raw), language(request))

    def view(place: Place, chosen: str, request: gr.Request) -> Updates:
        return look(page, widgets, replace(place, raw=chosen == "file"), language(request))

    def earlier(place: Place, request: gr.Request) -> Updates:
        if place.by == "search":
            *rest, start = place.trail or (0,)
            return look(page, widgets, replace(place, start=start, trail=tuple(rest)), language(request))
        return look(page, widgets, replace(place, start=max(0, place.start - PAGE_ROWS)), language(request))

    def later(place: Place, next_start: int | None, request: gr.Request) -> Updates:
        if next_start is None:
            return {widgets.goto: gr.skip()}
        moved = replace(place, start=next_start, trail=(*place.trail, place.start) if place.by == "search" else ())
        return look(page, widgets, moved, language(request))

    at, out = widgets.place, widgets.shown
    widgets.search.submit(guarded(search), [at, widgets.search], out, api_name="data_search", **quiet)
    # not input, which a dropdown of gradio 6.31 fires twice: the second answer would undo what was done meanwhile
    widgets.finding.select(guarded(finding), [at, widgets.finding], out, api_name="data_finding", **quiet)
    widgets.goto.submit(guarded(goto), [at, widgets.goto], out, api_name="data_goto", **quiet)
    widgets.view.input(guarded(view), [at, widgets.view], out, api_name="data_view", **quiet)
    widgets.previous.click(guarded(earlier), at, out, api_name="data_previous", **quiet)
    widgets.next.click(guarded(later), [at, widgets.next_start], out, api_name="data_next", **quiet)


def look(page: Page, widgets: Widgets, place: Place, spoken: str) -> Updates:
    """The rows at a place, or why they cannot be read; with every box saying where that is."""
    dataset = registry.get(place.name)
    audit = audits.newest(page.monitor, dataset)
    if place.by == "finding" and (audit is None or place.key not in audit.kinds):
        place = replace(place, by="all", key="", start=0)
    try:
        hits, place, following, total = _hits(dataset, audit, place)
        found = audits.words(audit, [at for at, _ in hits], spoken) if audit else {}
        read = row_view.readings(hits, dataset.how, found)
        shown = row_view.rows(read, spoken, raw=place.raw, hit=place.key if place.by == "search" else "")
        told = position(place, [at for at, _ in hits], total, spoken)
    except StudioError as error:
        shown, told, following = run_panel.problem(str(error)), "", None
    return {
        widgets.search: place.key if place.by == "search" else "",
        widgets.goto: "",
        widgets.finding: gr.update(choices=choices(audit, spoken), value=place.key if place.by == "finding" else ALL),
        widgets.view: gr.update(choices=_views(spoken), value=VIEWS[int(place.raw)]),
        widgets.rows: shown,
        widgets.position: told,
        widgets.previous: gr.update(interactive=place.start > 0),
        widgets.next: gr.update(interactive=following is not None),
        widgets.place: place,
        widgets.next_start: following,
    }


def choices(audit: Audit | None, spoken: str) -> list[tuple[str, str]]:
    """What can be shown of a dataset: every row, or those that its audit found something in."""
    words = table(spoken)
    every = (words["data.every_row"], ALL)
    kinds = audit.kinds if audit else {}
    return [every, *((f"{words[f'audit.kind.{kind}']} ({count:,})", kind) for kind, count in kinds.items())]


def position(place: Place, at: list[int], total: int, spoken: str) -> str:
    """Which rows are in sight: `rows 21–40 of 1,000,000`, `1–20 of 312 found`, or rows that hold a text."""
    words = table(spoken)
    if not at:
        key, values = ("data.none_holds", {"text": place.key}) if place.by == "search" else ("data.no_rows", {})
    elif place.by == "search":
        key, values = "data.holding", {"text": place.key, "first": f"{at[0] + 1:,}", "last": f"{at[-1] + 1:,}"}
    else:
        key = "data.position" if place.by == "all" else "data.position_found"
        values = {"first": f"{place.start + 1:,}", "last": f"{place.start + len(at):,}", "total": f"{total:,}"}
    return f"<div class='quiet position' role='status'>{html.escape(words[key].format(**values))}</div>"


def _hits(dataset: Dataset, audit: Audit | None, place: Place) -> tuple[list[tuple[int, Row]], Place, int | None, int]:
    """(position, row) of what is in sight, the place put right, where the next page begins, and of how many."""
    if place.by == "search":
        hits, following = registry.search(dataset, place.key, start=place.start, count=PAGE_ROWS)
        return hits, place, following, dataset.rows
    if place.by == "finding" and audit is not None:
        total = audit.kinds[place.key]
        place = replace(place, start=_within(place.start, total))
        positions = audit.positions(place.key, place.start, PAGE_ROWS)
        hits = list(zip(positions, registry.rows_at(dataset, positions), strict=True))
    else:
        total = dataset.rows
        place = replace(place, start=_within(place.start, total))
        hits = list(enumerate(registry.rows(dataset, place.start, PAGE_ROWS), place.start))
    following = place.start + PAGE_ROWS
    return hits, place, following if following < total else None, total


def _within(start: int, total: int) -> int:
    """The start itself, or that of the last page for one behind the end."""
    return max(0, start if start < total else (total - 1) // PAGE_ROWS * PAGE_ROWS)


def _views(spoken: str) -> list[tuple[str, str]]:
    return [(table(spoken)[f"data.view.{each}"], each) for each in VIEWS]


def _searching(seconds: float, spoken: str) -> str:
    text = table(spoken)["data.searching"].format(seconds=f"{seconds:.0f}")
    return f"<div class='quiet position' role='status'>{html.escape(text)}</div>"
