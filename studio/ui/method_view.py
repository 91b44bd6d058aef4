"""The chosen method and stage in a few words, and what they cost, as small pieces of markup. Pure; text is escaped.

Not here: their fields (studio.ui.form), and how a count is made (studio.engine.counting).
"""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

from studio import specs
from studio.errors import DataError, ModelError
from studio.specs import Method, Stage, TrainSpec
from studio.ui.run_view import NOTHING
from studio.ui.texts import table

Count = Callable[[TrainSpec], Any]
"""studio.engine.counting.count, or a stand-in: its answer has trainable, total and bytes_on_disk."""


def method(method: Method, language: str, *, unquantised: bool = False) -> str:
    """Its family, what it is, and what it cannot do. unquantised: the form turned quantisation off for it."""
    texts = table(language)
    family = html.escape(texts[f"train.family.{method.family}"])
    limits = [texts[f"train.cannot.{name}"] for name in _limits(method)]
    if unquantised:
        limits.append(texts["train.unquantised"])
    below = f"<p class='quiet'>{html.escape(' '.join(limits))}</p>" if limits else ""
    return f"<p><b>{family}</b> · {_what('method', method.kind, language)}</p>{below}"


def stage(stage: Stage, language: str) -> str:
    """What it learns from."""
    return f"<p>{_what('stage', stage.kind, language)}</p>"


def counted(spec: TrainSpec, language: str, count: Count) -> str:
    """How many parameters train, of how many, and how large the result is; why that is not known, where it is not.

    Raises: SpecError: a field names what the model does not have.
    """
    try:
        found = count(spec)
    except (DataError, ModelError) as error:
        return f"<p class='quiet'>{html.escape(str(error))}</p>"
    share = 100 * found.trainable / found.total if found.total else 0.0
    return "<p>{}</p>".format(
        html.escape(
            table(language)["train.count"].format(
                trainable=amount(found.trainable),
                total=amount(found.total),
                share=f"{share:.2g} %" if share < 99.5 else "100 %",
                size=size(found.bytes_on_disk),
            )
        )
    )


def no_count() -> str:
    """The line while something in the form is wrong."""
    return f"<p class='quiet'>{NOTHING}</p>"


def amount(number: int) -> str:
    """`135 M`: three digits and a unit."""
    return _scaled(number, ("", " K", " M", " B", " T"))


def size(number_of_bytes: int) -> str:
    """`19.5 MB`: three digits and a unit."""
    return _scaled(number_of_bytes, (" B", " kB", " MB", " GB", " TB"))


def _scaled(number: float, units: tuple[str, ...]) -> str:
    place = 0
    while number >= 999.5 and place < len(units) - 1:
        number, place = number / 1000, place + 1
    return f"{number:.3g}{units[place]}"


def _what(section: str, kind: str, language: str) -> str:
    return html.escape(table(language)[f"spec.{section}.kinds.{kind}.help"])


def _limits(method: Method) -> list[str]:
    can = specs.ability(method)
    if not can.nf4 and not can.int8:
        names = ["quantised"]
    else:
        names = [name for name in ("nf4", "int8") if not getattr(can, name)]
    return [*names, *(name for name in ("merge", "padding_free", "checkpointing") if not getattr(can, name))]
