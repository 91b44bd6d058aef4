"""`studio data add`: files, folders, LLaMA-Factory data folders, datasets of the hub. Not here: reading any of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from studio.cli import output
from studio.cli.described import counted, facts, mapping
from studio.cli.watching import watching
from studio.errors import DataError, StudioError

if TYPE_CHECKING:
    from studio.data.intake import Inspection, Intake, Watch
    from studio.data.registry import Dataset

SHOWN_FAULTS = 3
_PAIRS = re.compile(r",(?=\s*\w+=)")
"""Commas between pairs; a comma inside a column's name is not followed by a part and an equals sign."""


def add(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="Files, a folder, a quoted glob, a data folder, or with --hub an id."),
    ],
    name: Annotated[str | None, typer.Option(help="Name to register it under. Without: the source's own.")] = None,
    format: Annotated[str | None, typer.Option(help="How a row reads. Without: detected.")] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(metavar="PART=COLUMN", help="Which column plays a part; commas between pairs. Repeatable."),
    ] = None,
    tags: Annotated[
        list[str] | None, typer.Option(metavar="TAG=WORD", help="A word of the format that differs, as user_tag=user.")
    ] = None,
    unit: Annotated[
        Literal["line", "paragraph", "file"], typer.Option(help="What one row of a plain text file is.")
    ] = "line",
    max_rows: Annotated[int | None, typer.Option(min=1, help="Take at most this many rows.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Of a data folder: only this entry. Repeatable.")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Of a data folder: put this before each name.")] = "",
    hub: Annotated[bool, typer.Option("--hub", help="SOURCE is an id on the Hugging Face hub: owner/name.")] = False,
    subset: Annotated[str | None, typer.Option(help="With --hub: which subset.")] = None,
    split: Annotated[str | None, typer.Option(help="With --hub: which split. Without: train.")] = None,
    revision: Annotated[str | None, typer.Option(help="With --hub: branch, tag or commit.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")] = False,
) -> None:
    """Check rows and register them as a dataset."""
    from studio.data import imports, intake

    data_folder = not hub and len(sources) == 1 and imports.described(Path(sources[0]))
    where = {"subset": subset, "split": split, "revision": revision}
    if hub and len(sources) > 1:
        raise typer.BadParameter("--hub takes one id")
    if not hub:
        _refuse(where, "needs --hub")
    if data_folder:
        _refuse({"format": format, "columns": columns, "tags": tags}, "is left to dataset_info.json")
    else:
        _refuse({"only": only, "prefix": prefix}, "is for a folder with a dataset_info.json")
    how = {"format": format, "columns": pairs(columns, "part"), "tags": pairs(tags, "tag"), "max_rows": max_rows}
    chosen = bool(format or columns or tags)
    with watching(as_json=as_json) as watch:
        if data_folder:
            wanted = _names([*(only or ()), name or ""])
            _add_folder(Path(sources[0]), wanted, prefix, max_rows, watch, as_json)
        elif hub:
            named = _named(name, sources[0].rpartition("/")[2])
            _register(imports.from_hub(sources[0], **where, **how, watch=watch), named, as_json, chosen=chosen)
        else:
            source = sources[0] if len(sources) == 1 else sources
            named = _named(name, _stem(source, _files(source)))
            _register(intake.take_in(source, **how, unit=unit, watch=watch), named, as_json, chosen=chosen)


def pairs(given: list[str] | None, what: str) -> dict[str, str] | None:
    """`prompt=mr,response=ref` as a mapping. An empty column means that none plays the part.

    Raises: DataError: something is not of that form.
    """
    found: dict[str, str] = {}
    for item in (item for each in given or () for item in _PAIRS.split(each)):
        key, separator, column = item.strip().partition("=")
        if not separator or not key:
            form = "PART=COLUMN, such as response=answer" if what == "part" else "TAG=WORD, such as user_tag=user"
            raise DataError(f"'{item}' is not of the form {form}.")
        found[key] = column
    return found or None


def _add_folder(path: Path, only: list[str], prefix: str, max_rows: int | None, watch: Watch, as_json: bool) -> None:
    """Register the entries of a data folder. Fails only if none of them could be used."""
    from studio.data import imports

    outcomes = imports.folder(path, only or None, prefix, max_rows=max_rows, watch=watch)
    added = [each.dataset for each in outcomes if each.dataset]
    left_out = [each for each in outcomes if not each.dataset]
    if as_json:
        reasons = [{"name": each.name, "reason": each.reason} for each in left_out]
        output.emit({"added": [facts(each) for each in added], "left_out": reasons})
    else:
        for dataset in added:
            output.line(_summary(dataset))
    for each in left_out:
        output.note(f"{each.name} is left out: {each.reason}")
    if not added:
        raise typer.Exit(1)


def _register(taken: Intake, name: str, as_json: bool, *, chosen: bool) -> None:
    """chosen: the user said how rows read."""
    from studio.data import registry

    try:
        dataset = registry.register(taken, name)
    finally:
        taken.discard()
    found = taken.inspection
    if as_json:
        output.emit(facts(dataset) | _findings(found))
        return
    output.line(_summary(dataset))
    for text in _remarks(found, name, chosen):
        output.note(text)


def _summary(dataset: Dataset) -> str:
    valid = f", {dataset.valid:,} of them valid" if dataset.valid != dataset.rows else ""
    return f"{dataset.name}: {counted(dataset.rows)}{valid}, format {dataset.format} ({mapping(dataset.columns)})"


def _findings(found: Inspection) -> dict[str, Any]:
    how = found.detection
    return {
        "confidence": how.confidence,
        "reason": how.reason,
        "warnings": list(found.warnings),
        "faults_total": found.faults_total,
        "faults": [{"file": f.file, "row": f.row, "field": f.field, "reason": f.reason} for f in found.faults],
    }


def _remarks(found: Inspection, name: str, chosen: bool) -> list[str]:
    """What a person should know beside the result: warnings, a format that was guessed, the first faults."""
    how = found.detection
    look = f"Look at it: studio data show {name} --as-learned"
    unsure = [f"How it was understood is a guess. {how.reason} {look}"] if how.confidence < 0.5 and not chosen else []
    faults = [str(fault) for fault in found.faults[:SHOWN_FAULTS]]
    if found.faults_total > SHOWN_FAULTS:
        faults.append(f"All {found.faults_total:,} faults: studio data export {name} --as faults")
    return [*found.warnings, *unsure, *faults]


def _named(name: str | None, own: str) -> str:
    """The name that was given, or the source's own. Raises: StudioError: it cannot be a dataset's name."""
    from studio.home import checked_name

    if name is not None:
        return checked_name(name, "dataset name")
    try:
        return checked_name(own, "dataset name")
    except StudioError as error:
        raise DataError(f"{error} Name it with --name.") from error


def _files(source: str | list[str]) -> list[Path]:
    """Looked for before rows are read, so that a wrong source is told before a missing name."""
    from studio.data import hub, sources

    try:
        return sources.find(source)
    except DataError as error:
        if isinstance(source, str) and source.count("/") == 1 and hub.HUB_ID.fullmatch(source):
            raise DataError(f"{error} If it is an id on the hub, add --hub.") from error
        raise


def _stem(source: str | list[str], files: list[Path]) -> str:
    """The name of a lone file or folder; several files have none of their own."""
    if isinstance(source, str) and Path(source).is_dir():
        return Path(source).absolute().name
    return Path(files[0].name.removesuffix(".gz").removesuffix(".zst")).stem if len(files) == 1 else ""


def _names(given: list[str]) -> list[str]:
    return [name.strip() for each in given for name in each.split(",") if name.strip()]


def _refuse(options: dict[str, Any], why: str) -> None:
    """Raises: BadParameter: one of the options is given."""
    for name in (name for name, value in options.items() if value):
        raise typer.BadParameter(f"--{name} {why}")
