"""What the page says, in English and Chinese: `t` for what the browser renders, `say` for what Python composes.

Texts live in en/NAME.yaml and zh/NAME.yaml, one file per tab; a nested key `state: {running: …}` in train.yaml is read
as `train.state.running`. Labels and help of a spec's fields are `spec.PATH.label` and `spec.PATH.help`, those of a kind
of method or stage `spec.SECTION.kinds.KIND.label`: English help is the docstring, so it exists once. Not here: what a
StudioError says (the same text as in the shell).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.i18n import I18nData
from pydantic import BaseModel

from studio import specs
from studio.errors import unknown
from studio.specs import AuditSpec, EvaluateSpec, ExportSpec, Sampling, TrainSpec

LANGUAGES = ("en", "zh")
LOCALES = {"en": "en", "zh": "zh-CN"}
"""What a browser calls each language."""
_FOLDER = Path(__file__).resolve().parent
_PREFIX = "studio."  # Gradio's own keys, such as common.error, stay its own


def t(key: str) -> I18nData:
    """A marker that the browser replaces by the text in its own language. For labels, buttons, info and the like."""
    if key not in table("en"):
        raise KeyError(unknown("text", key, table("en")))
    return I18nData(_PREFIX + key)


def say(key: str, request: gr.Request | None = None, /, **values: Any) -> str:
    """A text in the language of the request, with its {placeholders} filled in."""
    return table(language(request))[key].format(**values)


def language(request: gr.Request | None) -> str:
    """`en` or `zh`: the one in the address (`?lang=zh`), else the one that the browser prefers."""
    if request is None:
        return "en"
    return preferred(dict(request.query_params).get("lang"), request.headers.get("accept-language"))


def preferred(asked: str | None, accepted: str | None) -> str:
    """asked: `lang` of the address. accepted: the header Accept-Language. Any kind of Chinese is zh, the rest en."""
    if asked in LANGUAGES:
        return asked
    first = (accepted or "").split(",")[0]
    return "zh" if first.strip().lower().startswith("zh") else "en"


def i18n() -> gr.I18n:
    """Everything `t` can name, for launch()."""
    return gr.I18n(
        **{locale: {_PREFIX + key: text for key, text in table(name).items()} for name, locale in LOCALES.items()}
    )


@cache
def table(name: str) -> Mapping[str, str]:
    """Every text of a language, by key."""
    texts = dict(_spec_texts()) if name == "en" else {}
    for path in sorted((_FOLDER / name).glob("*.yaml")):
        values = specs.load_yaml(path.read_text(encoding="utf-8")) or {}
        texts |= dict(_flat(values, f"{path.stem}."))
    return texts


def _spec_texts() -> Iterator[tuple[str, str]]:
    """English label and help of every field, section and kind, from the names and docstrings in studio.specs."""
    for section, info in TrainSpec.model_fields.items():
        yield from _told(f"spec.{section}", section, info.description)
        for kind in _classes(section):
            for field, inner in kind.model_fields.items():
                yield from _told(f"spec.{section}.{field}", field, inner.description)
    for section in specs.UNIONS:
        for name, kind in specs.kinds(section).items():
            yield from _told(f"spec.{section}.kinds.{name}", name, specs.described(kind))
    flat = {"evaluate_spec": EvaluateSpec, "export_spec": ExportSpec, "audit_spec": AuditSpec, "sampling": Sampling}
    for prefix, kind in flat.items():
        for field, info in kind.model_fields.items():
            yield from _told(f"{prefix}.{field}", field, info.description)


def _told(key: str, name: str, help: str | None) -> Iterator[tuple[str, str]]:
    yield f"{key}.label", humanised(name)
    yield f"{key}.help", help or ""


def _classes(section: str) -> Iterable[type[BaseModel]]:
    """The classes whose fields a section of TrainSpec can have."""
    if section in specs.UNIONS:
        return specs.kinds(section).values()
    annotation = TrainSpec.model_fields[section].annotation
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []


def humanised(name: str) -> str:
    """`learning_rate` as `Learning rate`."""
    return name.replace("_", " ").capitalize()


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
