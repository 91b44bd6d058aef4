"""`studio data`: the registered datasets, and what can be done with them. Not here: doing any of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer

from studio.cli import adding, auditing, output
from studio.cli.described import counted, facts, lines, row_facts, row_lines
from studio.errors import DataError, StudioError, unknown

if TYPE_CHECKING:
    from studio.data.example import Row
    from studio.data.registry import Dataset

app = typer.Typer(help="Add, look at, audit and change datasets.", no_args_is_help=True)
app.command()(adding.add)
app.command()(auditing.audit)
app.command()(auditing.derive)
app.command()(auditing.split)

Json = Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A dataset, as in: studio data list.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("list")
def list_datasets(as_json: Json = False) -> None:
    """List the registered datasets."""
    from studio.data import registry

    found = registry.every()
    if as_json:
        output.emit([facts(each) for each in found])
    else:
        headings = ("name", "rows", "valid", "format", "language", "title")
        rows = ((each.name, each.rows, each.valid, each.format, each.language, each.title) for each in found)
        output.table(headings, rows)
    for problem in registry.problems():
        output.note(problem)


@app.command()
def show(
    name: Name,
    rows: Annotated[int, typer.Option(help="How many rows to show.", min=0, max=1000)] = 5,
    start: Annotated[int, typer.Option(help="First position to show, from 0.", min=0)] = 0,
    find: Annotated[str | None, typer.Option(metavar="TEXT", help="Only rows that hold this text.")] = None,
    finding: Annotated[
        str | None, typer.Option(metavar="KIND", help="Only rows that the newest audit found, such as duplicate.")
    ] = None,
    as_learned: Annotated[bool, typer.Option("--as-learned", help="Show what is learned of each row.")] = False,
    as_json: Json = False,
) -> None:
    """Show a dataset and some of its rows."""
    from studio.data import registry

    if find is not None and finding is not None:
        raise typer.BadParameter("give --find or --finding, not both")
    dataset = registry.get(name)
    found, following = _picked(dataset, rows, start, find, finding)
    learned = [_learned(dataset, row) if as_learned else None for _, row in found]
    partners = _partners(dataset, finding, [position for position, _ in found])
    if as_json:
        shown = [
            row_facts(position, row)
            | ({"learned": _as_json(example)} if as_learned else {})
            | ({"partner": partner} if finding else {})
            for (position, row), example, partner in zip(found, learned, partners, strict=True)
        ]
        output.emit(facts(dataset) | {"preview": shown, "next": following})
        return
    if find is None and finding is None:
        for line in lines(dataset):
            output.line(line)
    for (position, row), example, partner in zip(found, learned, partners, strict=True):
        for line in _shown(position, row, example):
            output.line(line)
        if partner is not None:
            output.line(f"  {finding} of position {partner}")
    if not found and (find or finding):
        output.note("There is no such row.")
    if following is not None and (find or finding):
        output.note(f"There are more: --start {following}")


@app.command()
def export(
    name: Name,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="A new file. Without: stdout.")] = None,
    what: Annotated[
        Literal["rows", "trl", "faults"],
        typer.Option(
            "--as", help="rows: as they were; trl: as trl's dataset types; faults: what is left out, and why."
        ),
    ] = "rows",
    as_json: Annotated[bool, typer.Option("--json", help="With --out: one JSON value on stdout.")] = False,
) -> None:
    """Write a dataset as JSON lines."""
    from studio.data import registry

    dataset = registry.get(name)
    written = left_out = 0
    with _target(out) as file:
        for value in _exported(dataset, what):
            if value is None:
                left_out += 1
                continue
            file.write(json.dumps(value, ensure_ascii=False) + "\n")
            written += 1
    if out and as_json:
        output.emit({"path": str(out.absolute()), "rows": written, "left_out": left_out})
    elif out:
        output.line(f"{out}: {counted(written)}")
    if left_out and what != "faults":
        output.note(f"Left out: {counted(left_out)}. See them: studio data export {name} --as faults")


@app.command()
def rename(
    old: Name,
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Give a dataset of yours another name."""
    from studio.data import registry
    from studio.home import checked_name

    checked_name(new, "dataset name")
    dataset = registry.get(old)
    _ask(f"Rename {old} to {new}? Specs that name {old} will not find it any more.", yes)
    dataset = registry.rename(old, new)
    if as_json:
        output.emit(facts(dataset))
    else:
        output.line(f"{old} is called {new} now.")


@app.command()
def remove(name: Name, yes: Yes = False, as_json: Json = False) -> None:
    """Forget a dataset that you added, and delete its rows."""
    from studio.data import registry

    dataset = registry.get(name)
    _ask(f"Remove {name} and its {counted(dataset.rows)}? What was trained with it stays.", yes)
    registry.remove(name)
    if as_json:
        output.emit({"removed": name})
    else:
        output.line(f"{name} is removed.")


def _picked(
    dataset: Dataset, count: int, start: int, find: str | None, finding: str | None
) -> tuple[list[tuple[int, Row]], int | None]:
    """(position, row) of the rows asked for, and where the next ones start; None where there are none."""
    from studio.data import registry
    from studio.data.audit import report

    if find is not None:
        return registry.search(dataset, find, start=start, count=count)
    if finding is not None:
        positions = report.positions(_findings(dataset, finding), finding, start, count + 1)
        following = start + count if len(positions) > count else None
        positions = positions[:count]
        return list(zip(positions, registry.rows_at(dataset, positions), strict=True)), following
    found = list(enumerate(registry.rows(dataset, start, count), start))
    return found, start + count if start + count < dataset.rows else None


def _findings(dataset: Dataset, finding: str) -> Path:
    """Where the newest audit wrote what it found. Raises: DataError: there is none, or no such kind of finding."""
    from studio.data.audit.report import KINDS

    if finding not in KINDS:
        raise DataError(unknown("finding", finding, KINDS))
    audited = auditing.newest(dataset, finding)
    if audited is None:
        raise DataError(f"'{dataset.name}' as it is now was not audited yet. First: studio data audit {dataset.name}")
    return audited.findings


def _partners(dataset: Dataset, finding: str | None, positions: list[int]) -> list[int | None]:
    """The row that each of them repeats, contradicts or leaks from, if the finding is of such a kind."""
    from studio.data.audit import report

    if finding is None or not positions:
        return [None] * len(positions)
    findings = _findings(dataset, finding)
    return [report.partner(findings, finding, position) for position in positions]


def _learned(dataset: Dataset, row: Row) -> Any:
    from studio.data.intake import example

    return example(row, dataset.how)


def _as_json(outcome: Any) -> Any:
    from studio.data.example import Example

    return outcome.conventional() if isinstance(outcome, Example) else {"fault": str(outcome)}


def _shown(position: int, row: Row, outcome: Any) -> list[str]:
    from studio.data.example import BadRow

    if isinstance(outcome, BadRow) and row.values is not None:
        return [f"{outcome} (position {position})"]
    return row_lines(position, row, None if isinstance(outcome, BadRow) else outcome)


def _exported(dataset: Dataset, what: str) -> Iterator[Any]:
    """The lines; None for each row that has no place among them."""
    from studio.data import faults, registry
    from studio.data.example import Example

    if what == "rows":
        yield from (row.values for row in registry.read(dataset))
        return
    for row, outcome in registry.outcomes(dataset):
        if isinstance(outcome, Example):
            yield outcome.conventional() if what == "trl" else None
        elif what == "trl":
            yield None
        else:
            place = {"file": row.file, "row": row.number, "field": outcome.field, "reason": outcome.reason}
            yield place | {"text": faults.text(row)}


@contextmanager
def _target(out: Path | None) -> Iterator[TextIO]:
    """stdout, or a new file that is deleted again if it does not become whole."""
    if out is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    try:
        file = out.open("x", encoding="utf-8")  # an existing file may hold somebody's work
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror}. Name another file.") from error
    try:
        with file:
            yield file
    except OSError as error:
        out.unlink(missing_ok=True)
        raise DataError(f"{out} cannot be written: {error.strerror}. Nothing is left of it.") from error
    except BaseException:
        out.unlink(missing_ok=True)
        raise


def _ask(question: str, yes: bool) -> None:
    """Go on only if the user agrees. Raises: StudioError: there is nobody to ask, and --yes is not given."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise StudioError(f"{question} There is no terminal to ask on: add --yes.")
    if not typer.confirm(output.plain(question), err=True):
        raise typer.Exit(2)
