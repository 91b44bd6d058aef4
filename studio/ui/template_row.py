"""What the Template tab shows of a row: one or two templates' texts and tokens, or what stands in the way.

Not here: the markup of a text (studio.ui.token_view), and which row comes next (studio.ui.template_rows).
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio import templates
from studio.data import registry
from studio.data.example import Example
from studio.engine.models.bundled import SOURCE
from studio.errors import StudioError, TemplateError
from studio.jobs.monitor import Monitor
from studio.templates import Policy, Template, TextTokenizer
from studio.templates.checking import Finding
from studio.templates.confined import Unfinished
from studio.ui import preview, run_panel, template_rows, token_compare, token_view
from studio.ui.preview import NotHere, Written
from studio.ui.template_names import NO_SECOND
from studio.ui.template_rows import Place
from studio.ui.texts import language, say, table


@dataclass(frozen=True)
class Draft:
    """A template that is written and not saved. over: the chosen template, instead of which it is shown."""

    over: str
    name: str
    text: str


@dataclass(frozen=True)
class Asked:
    """What to show. template, second: names; second may be NO_SECOND. kind: of rows, or template_rows.ALL."""

    model: str
    template: str
    dataset: str
    policy: Policy
    second: str = NO_SECOND
    draft: Draft | None = None
    kind: str = template_rows.ALL
    row: int = 1
    view: str = "text"

    @classmethod
    def of(cls, held: Mapping[str, Any], **more: Any) -> Asked:
        """held: what the widgets hold, by name; any of them may be empty for a moment."""
        limit = held["limit"]
        policy = Policy(
            held["supervise"] or "assistant",
            bool(held["learn_thoughts"]),
            (held["system"] or "").strip() or None,
            int(limit) if isinstance(limit, int | float) and limit >= 1 else None,
            held["truncation"] or "cut_answer",
        )
        return cls((held["model"] or "").strip(), held["template"], held["dataset"], policy, **more)


@dataclass(frozen=True)
class Shown:
    """What `look` found. problem: what stands in the way of all. raw: the text of the template; None: as before."""

    place: Place
    position: str
    kinds: Sequence[tuple[str, str]]
    panes: str = ""
    about: str = ""
    raw: str | None = None
    problem: str = ""
    fetchable: bool = False


def look(monitor: Monitor, asked: Asked, request: gr.Request, *, begin: bool = False) -> Shown:
    """The row as asked; whatever stands in the way is told. begin: at the first of the rows of this kind."""
    spoken = language(request)
    kinds: list[tuple[str, str]] = template_rows.offered(None, spoken)
    where, position = Place(asked.row, template_rows.ALL, (), asked.row, 0), ""
    try:
        audit = template_rows.audit_of(monitor, asked.dataset)
        kinds = template_rows.offered(audit, spoken)
        rows = registry.get(asked.dataset).rows
        where = template_rows.place(audit, asked.kind, asked.row, rows, begin=begin)
        position = template_rows.told(where, audit, spoken)
        reader = preview.tokenizer(asked.model)
        one, _ = preview.example(asked.dataset, where.row)
        panes, about, raw = _panes(asked, one, reader, spoken)
    except StudioError as error:
        return Shown(where, position, kinds, **_refused(error, asked.model, request))
    return Shown(where, position, kinds, panes, about, raw)


def first(asked: Asked) -> Written:
    """The row by the chosen template, or by the draft. Raises: StudioError: what stands in the way."""
    reader = preview.tokenizer(asked.model)
    one, _ = preview.example(asked.dataset, asked.row)
    return preview.written(one, resolved(asked.template, asked.draft, reader), reader, asked.policy)


def resolved(name: str, draft: Draft | None, reader: TextTokenizer) -> Template:
    """The draft where it is shown instead of this template, else the template. Raises: TemplateError."""
    if draft is not None and draft.over == name:
        return templates.parse(draft.name, draft.text, "own")
    return templates.resolve(name, reader)


@dataclass(frozen=True)
class _Side:
    """One template with the row. found: None where it was refused, for the reason."""

    title: str
    template: Template | None
    found: Written | None
    reason: str = ""
    wrong: tuple[Finding, ...] = ()
    drafted: bool = False


def _panes(asked: Asked, one: Example, reader: TextTokenizer, spoken: str) -> tuple[str, str, str | None]:
    """The markup of the texts, that of what stands below, and the template's own text."""
    sides = [_side(asked.template, asked.draft, one, reader, asked.policy, spoken)]
    if asked.second:
        sides.append(_side(asked.second, None, one, reader, asked.policy, spoken))
    titled = len(sides) > 1 or asked.draft is not None
    panes = "".join(_pane(side, asked.view, spoken, titled) for side in sides)
    both = [side.found for side in sides if side.found is not None]
    line = token_compare.compared(*both, spoken) if len(both) == 2 else ""
    about = token_view.legend(spoken) + "".join(_below(sides, reader, spoken))
    raw = sides[0].template.text if sides[0].template else None
    return f"{line}<div class='panes' data-panes='{len(sides)}'>{panes}</div>", about, raw


def _side(
    name: str, draft: Draft | None, one: Example, reader: TextTokenizer, policy: Policy, spoken: str
) -> _Side:  # fmt: skip
    drafted = draft is not None and draft.over == name
    title = _drafted(draft.name, spoken) if draft is not None and drafted else name
    template = None
    try:
        template = resolved(name, draft, reader)
        found = preview.written(one, template, reader, policy)
    except Unfinished as error:  # to look for more that is wrong would take as long again
        return _Side(title, template, None, str(error), drafted=drafted)
    except TemplateError as error:
        wrong = preview.findings(template, reader) if template else ()
        return _Side(title, template, None, str(error), wrong, drafted)
    return _Side(title, template, found, wrong=preview.findings(template, reader), drafted=drafted)


def _drafted(name: str, spoken: str) -> str:
    word = table(spoken)["template.editor.draft"]
    return name if name == word else f"{name} ({word})"


def _pane(side: _Side, view: str, spoken: str, titled: bool) -> str:
    title = side.title if titled else ""
    if side.found is None:
        return token_view.refused(side.reason, spoken, title=title)
    return token_view.pane(side.found, view, spoken, title=title)


def _below(sides: Sequence[_Side], reader: TextTokenizer, spoken: str) -> Iterator[str]:
    for side in sides:
        if side.template is None:
            continue
        if len(sides) > 1:
            yield f"<h3 class='pane-title'>{html.escape(side.title)}</h3>"
        if side.found is not None:
            yield token_view.stops(templates.stop_tokens(side.template, reader), reader, spoken)
        if not side.drafted:  # of a draft they stand below the editor
            yield token_view.findings(side.wrong, spoken)


def _refused(error: StudioError, model: str, request: gr.Request) -> dict[str, Any]:
    """What stands in the way, and for the bundled model the button that helps."""
    if not isinstance(error, NotHere) or error.kind == "folder":
        return {"problem": run_panel.problem(str(error))}
    text = say(f"template.not_here.{error.kind}", request, model=model, size=f"{SOURCE.size / 1e6:.0f}")
    return {"problem": f'<p class="note">{html.escape(text)}</p>', "fetchable": error.kind == "bundled"}
