"""What a run will need, as a bar and a few lines of markup. Pure; text is escaped.

Not here: the estimate (studio.engine.fit), and when it is made (studio.ui.tabs.train).
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import Any

from studio.engine.fit import Change, Fit
from studio.errors import DataError, ModelError
from studio.specs import TrainSpec
from studio.ui.method_view import size
from studio.ui.run_view import NOTHING, duration
from studio.ui.texts import table

Needs = Callable[[TrainSpec], Fit]
"""studio.jobs.needs.needs with the page's monitor, or a stand-in."""
GIB = 1024**3


def estimated(spec: TrainSpec, needs: Needs) -> Fit | None:
    """None: it is not known; the count says why. Raises: SpecError: a field names what the model does not have."""
    try:
        return needs(spec)
    except (DataError, ModelError):
        return None


def bar(fit: Fit | None, language: str) -> str:
    """The parts of the memory that is needed, against what is free; one line below it with the verdict."""
    texts = table(language)
    if fit is None:
        return f"<div class='fit'><div class='fit-bar'></div><p class='quiet'>{NOTHING}</p></div>"
    whole = max(fit.free, fit.needed)
    pieces = "".join(
        f"<i data-part='{name}' style='width:{100 * getattr(fit.parts, name) / whole:.2f}%'"
        f" title='{html.escape(_part(name, fit, texts), quote=True)}'></i>"
        for name in fit.parts.names()
    )
    free = f"<b style='left:{100 * fit.free / whole:.2f}%'></b>" if fit.needed > fit.free else ""
    key = fit.verdict.replace(" ", "_")
    said = texts["train.fit.of_free"].format(needed=_gib(fit.needed), free=_gib(fit.free), place=_place(fit, texts))
    badge = f"<span class='badge badge-{key}'>{html.escape(texts[f'train.fit.{key}'])}</span>"
    below = f"<p>{badge} {html.escape(said)}</p>"
    return f"<div class='fit' data-verdict='{key}'><div class='fit-bar'>{pieces}{free}</div>{below}</div>"


def details(fit: Fit | None, language: str) -> str:
    """Each part with its size, what was assumed of the rows, and disk and time in words."""
    texts = table(language)
    if fit is None:
        return ""
    legend = "".join(
        f"<li><i data-part='{name}'></i>{html.escape(_part(name, fit, texts))}</li>" for name in fit.parts.names()
    )
    lines = "".join(
        f"<p>{html.escape(line)}</p>" for line in (_rows(fit, texts), _disk(fit, texts), _time(fit, language))
    )
    return f"<ul class='fit-parts'>{legend}</ul>{lines}"


def advice(fit: Fit | None, language: str) -> str:
    """What would make it fit, in one sentence; nothing where it fits well."""
    texts = table(language)
    if fit is None or fit.verdict == "fits":
        return ""
    if fit.change is None:
        return f"<p>{html.escape(texts['train.fit.no_change'])}</p>"
    return f"<p>{html.escape(changed(fit.change, texts))}</p>"


def changed(change: Change, texts: Mapping[str, str]) -> str:
    """A change with the labels of its fields."""
    said = texts["train.fit.and"].join(
        texts["train.fit.set"].format(label=texts[f"spec.{path}.label"], value=value)
        for path, value in change.fields.items()
    )
    return texts["train.fit.change"].format(changes=said, needed=_gib(change.needed))


def _part(name: str, fit: Fit, texts: Mapping[str, str]) -> str:
    return texts["train.fit.part"].format(name=texts[f"train.fit.parts.{name}"], size=_gib(getattr(fit.parts, name)))


def _place(fit: Fit, texts: Mapping[str, str]) -> str:
    return texts["train.fit.on_gpu" if fit.setting.gpu else "train.fit.on_cpu"]


def _rows(fit: Fit, texts: Mapping[str, str]) -> str:
    key = "train.fit.rows_counted" if fit.rows_known else "train.fit.rows_assumed"
    return texts[key].format(
        rows=f"{fit.batch.rows:,}", longest=f"{fit.batch.longest:,}", tokens=f"{fit.batch.tokens:,}"
    )


def _disk(fit: Fit, texts: Mapping[str, str]) -> str:
    found = fit.disk
    said = texts["train.fit.disk"].format(
        needed=size(found.needed), free=size(found.free), count=found.checkpoints, each=size(found.checkpoint)
    )
    return said if found.enough else f"{said} {texts['train.fit.disk_full']}"


def _time(fit: Fit, language: str) -> str:
    texts = table(language)
    if fit.seconds is None:
        return texts["train.fit.time_unknown"]
    return texts["train.fit.time"].format(
        time=duration(fit.seconds, language), tokens=f"{fit.tokens:,.0f}", pace=f"{fit.tokens_per_s:,.0f}"
    )


def _gib(count: Any) -> str:
    """`1.9 GiB`, `64 MiB`."""
    return f"{count / GIB:.1f} GiB" if count >= 0.95 * GIB else f"{count / 1024**2:.0f} MiB"
