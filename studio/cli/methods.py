"""`studio methods` and `studio stages`: what can train, and towards what, with their fields, and what a method costs.

Not here: training (studio.cli.runs).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.cli import output
from studio.errors import SpecError, StudioError, unknown

if TYPE_CHECKING:
    from studio.specs import Section, TrainSpec

methods = typer.Typer(help="Tuning methods: which parameters train, and what that costs.", no_args_is_help=True)
stages = typer.Typer(help="Training stages: what the objective is.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")]
Kind = Annotated[str, typer.Argument(metavar="KIND")]
CAN = {
    "nf4": "nf4",
    "int8": "int8",
    "merge": "merge",
    "mixed": "mixed",
    "padding_free": "packing",
    "checkpointing": "checkpointing",
}
"""The word for each ability."""


@methods.command("list")
def list_methods(
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Also what each trains of this model.")] = None,
    as_json: Json = False,
) -> None:
    """List the tuning methods, as they are by default."""
    from studio import specs

    found = [_method(kind, cls, model) for kind, cls in specs.kinds("method").items()]
    if as_json:
        output.emit(found)
    elif model is None:
        output.table(("method", "can", "about"), ((each["kind"], _can(each["can"]), each["about"]) for each in found))
    else:
        output.table(("method", "trains", "share", "on disk", "about"), map(_costs, found))


@methods.command("show")
def show_method(kind: Kind, as_json: Json = False) -> None:
    """Print what a method is, what it can do, and its fields."""
    from studio import specs

    _show("method", kind, as_json, can=asdict(specs.ability(_of("method", kind)())))


@stages.command("list")
def list_stages(as_json: Json = False) -> None:
    """List the training stages."""
    from studio import specs

    found = [{"kind": kind, "about": specs.described(cls)} for kind, cls in specs.kinds("stage").items()]
    if as_json:
        output.emit(found)
    else:
        output.table(("stage", "about"), ((each["kind"], each["about"]) for each in found))


@stages.command("show")
def show_stage(kind: Kind, as_json: Json = False) -> None:
    """Print what a stage is, and its fields."""
    _show("stage", kind, as_json)


def limits(schema: Mapping[str, Any]) -> str:
    """What a field may be, from its JSON schema: `1 to 4096`, `above 0`, `relu, gelu, silu`, `true or false`."""
    if "anyOf" in schema:
        others = [each for each in schema["anyOf"] if each.get("type") != "null"]
        return f"{limits(others[0])}, or empty".removeprefix(", ")
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "boolean":
        return "true or false"
    if schema.get("type") == "array":
        return f"list: {inner}" if (inner := limits(schema.get("items", {}))) else "list"
    if schema.get("type") == "object":
        return "name: value"
    return _range(schema)


def _range(schema: Mapping[str, Any]) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        return f"{least:g} to {most:g}" if most < 1e6 else f"{least:g} to {most:.0f}"
    words = {"above": "exclusiveMinimum", "at least": "minimum", "below": "exclusiveMaximum", "up to": "maximum"}
    return ", ".join(f"{word} {schema[name]:g}" for word, name in words.items() if schema.get(name) is not None)


def _method(kind: str, cls: type[Section], model: str | None) -> dict[str, Any]:
    from studio import specs

    facts = {"kind": kind, "about": specs.described(cls), "can": asdict(specs.ability(cls()))}
    return facts if model is None else facts | _counted(kind, model)


def _counted(kind: str, model: str) -> dict[str, Any]:
    """What a method trains of a model, or why it cannot."""
    from studio.engine import counting

    try:
        count = counting.count(_spec(kind, model))
    except SpecError as error:
        return {"faults": [str(fault) for fault in error.faults]}
    return asdict(count) | {"share": count.share}


def _spec(kind: str, model: str) -> TrainSpec:
    from studio import specs

    values = {"model": {"name": model}, "quantization": {"kind": "none"}, "method": {"kind": kind}}
    return specs.parse(specs.TrainSpec, values)


def _costs(facts: Mapping[str, Any]) -> tuple[str, ...]:
    if "faults" in facts:
        return facts["kind"], "", "", "", facts["faults"][0]
    share = f"{100 * facts['share']:.3g} %"
    return facts["kind"], f"{facts['trainable']:,}", share, size(facts["bytes_on_disk"]), facts["about"]


def size(count: int) -> str:
    """Bytes as people read them: `19.5 MB`."""
    for unit, one in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= one:
            return f"{count / one:.3g} {unit}"
    return f"{count} bytes"


def _can(abilities: Mapping[str, Any]) -> str:
    return " ".join(word for name, word in CAN.items() if abilities[name])


def _of(section: str, kind: str) -> type[Section]:
    """Raises: StudioError: there is no such kind."""
    from studio import specs

    known = specs.kinds(section)
    if kind not in known:
        raise StudioError(unknown(section, kind, known))
    return known[kind]


def _show(section: str, kind: str, as_json: bool, *, can: Mapping[str, Any] | None = None) -> None:
    from studio import specs

    cls = _of(section, kind)
    fields = list(_fields(cls))
    if as_json:
        output.emit({"kind": kind, "about": specs.described(cls), "fields": fields} | ({"can": can} if can else {}))
        return
    output.line(f"{kind}: {specs.described(cls)}")
    if can:
        output.line(f"can: {_can(can)}")
    if fields:
        output.line()
        rows = ((each["name"], _value(each["default"]), each["limits"], each["help"]) for each in fields)
        output.table(("field", "default", "limits", "help"), rows)


def _fields(cls: type[Section]) -> Iterator[dict[str, Any]]:
    schemas, defaults = cls.model_json_schema()["properties"], cls().model_dump(mode="json")
    for name, info in cls.model_fields.items():
        if name != "kind":
            told = limits(schemas[name])
            yield {"name": name, "default": defaults[name], "limits": told, "help": info.description}


def _value(value: Any) -> str:
    """As YAML has it, in one line; nothing for what is empty."""
    from studio import specs

    return "" if value is None or value in ([], {}) else specs.yaml_value(value)
