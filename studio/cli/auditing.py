"""`studio data audit`, `derive` and `split`: what is wrong with a dataset, and new datasets without it.

Not here: finding it (studio.data.audit, in a job of its own) and making them (studio.data.derive).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio import specs
from studio.cli import output
from studio.cli.described import counted, facts
from studio.cli.session import Session
from studio.cli.watching import watching
from studio.errors import DataError

if TYPE_CHECKING:
    from studio.data.audit import Report
    from studio.data.registry import Dataset
    from studio.jobs.folder import JobFolder

SHOWN_FAULTS = 5
SHOWN_CLASSES = 12
LINE = 240
REMEDIES = (
    "drop_faulty, drop_duplicates, drop_near_duplicates, drop_conflicts, drop_leaks, drop_truncated, "
    "drop_unsupervised, drop_unwritable, balance or sample."
)
FINDINGS = {
    "faults_total": "fault",
    "duplicates": "duplicate",
    "near_duplicates": "near_duplicate",
    "conflicts": "conflict",
    "leaked": "leak",
    "special_tokens": "special_token",
    "unwritable": "unwritable",
    "truncated": "truncated",
    "unsupervised": "unsupervised",
}
"""Figure of a report -> the kind of finding that it counts."""

Json = Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A dataset, as in: studio data list.")]
Seed = Annotated[int, typer.Option(help="Same seed, same rows.", min=0)]


def audit(
    context: typer.Context,
    name: Name,
    model: Annotated[str | None, typer.Option(help="Count tokens as this model does. Without: no tokens.")] = None,
    template: Annotated[str | None, typer.Option(help="Template that the rows are written with.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Cutoff, in tokens.")] = None,
    system: Annotated[str | None, typer.Option(help="System text for rows that have none.")] = None,
    supervise: Annotated[str | None, typer.Option(metavar="assistant|last|all", help="Tokens that carry loss.")] = None,
    against: Annotated[str | None, typer.Option(metavar="NAME", help="Another dataset, to look for leakage.")] = None,
    validation_share: Annotated[float | None, typer.Option(help="Share held out, to look for leakage.")] = None,
    group: Annotated[str | None, typer.Option(metavar="COLUMN", help="Rows of one value stay on one side.")] = None,
    no_near: Annotated[bool, typer.Option("--no-near", help="Do not look for near duplicates.")] = False,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field. Repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole report as one JSON value on stdout.")] = False,
) -> None:
    """Find out what is wrong with a dataset before anything is trained on it."""
    from studio.cli import follow
    from studio.jobs import control

    values = {
        "model": model,
        "max_length": max_length,
        "against": against,
        "validation_share": validation_share,
        "group": group,
        "near_duplicates": False if no_near else None,
        "template": _without_nones({"name": template, "system": system, "supervise": supervise}) or None,
    }
    given = specs.with_overrides({"dataset": name} | _without_nones(values), changes or ())
    session: Session = context.obj
    folder = control.submit(specs.parse(specs.AuditSpec, given), executor=session.get_executor())
    if not as_json:
        output.note(f"{folder.id} in {folder.path}")
    raise typer.Exit(follow.follow(folder, as_json=False, outcome=_outcome(as_json)))


def derive(
    name: Name,
    remedy: Annotated[str, typer.Argument(metavar="REMEDY", help=REMEDIES)],
    new: Annotated[str, typer.Option("--name", help="Name of the new dataset.")],
    rows: Annotated[int | None, typer.Option(help="With sample: how many rows.", min=1)] = None,
    seed: Seed = 42,
    as_json: Json = False,
) -> None:
    """Make a new dataset out of one, without what an audit found. The old one stays as it is."""
    from studio.data import derive as remedies
    from studio.data import registry

    dataset = registry.get(name)
    audited = newest(dataset, remedy.removeprefix("drop_").removesuffix("s"))
    with watching(as_json=as_json) as watch:
        made = remedies.derive(
            name, remedy, new, findings=audited.findings if audited else None, rows=rows, seed=seed, watch=watch
        )
    if as_json:
        output.emit(facts(made))
    else:
        output.line(f"{made.name}: {counted(made.rows)} of the {dataset.rows:,} of {name}")


def split(
    name: Name,
    shares: Annotated[str, typer.Option(help="Shares of the rows, as in 0.8,0.1,0.1.")],
    names: Annotated[str, typer.Option(help="Names of the new datasets, as in a,b,c.")],
    group: Annotated[str | None, typer.Option(metavar="COLUMN", help="Rows of one value stay together.")] = None,
    seed: Seed = 42,
    as_json: Json = False,
) -> None:
    """Cut a dataset into several, such as train, validation and test. Equal rows stay together."""
    from studio.data import derive as remedies
    from studio.data import registry

    dataset = registry.get(name)
    wanted = [_share(each) for each in shares.split(",")]
    new = [each.strip() for each in names.split(",")]
    with watching(as_json=as_json) as watch:
        made = remedies.split_into(dataset, wanted, new, seed=seed, group=group, watch=watch)
    if as_json:
        output.emit([facts(each) for each in made])
        return
    for each in made:
        output.line(f"{each.name}: {counted(each.rows)} of the {dataset.rows:,} of {name}")


def newest(dataset: Dataset, kind: str) -> JobFolder | None:
    """The newest finished audit of exactly these rows, read as they are read now; one that looked for this kind of
    finding, if there is one."""
    from studio.data.audit import report
    from studio.jobs import folder as folders

    audits = [each for each in folders.every() if each.report.is_file() and report.are_about(each.findings, dataset)]
    audits.sort(key=lambda each: (kind in report.looked_for(each.findings), each.report.stat().st_mtime_ns))
    return audits[-1] if audits else None


def _outcome(as_json: bool) -> Callable[[JobFolder, str, str], int]:
    def tell(folder: JobFolder, state: str, message: str) -> int:
        from studio.cli.follow import STATUS
        from studio.data.audit import Report

        if state == "finished":
            report = Report.load(folder.report)
            if as_json:
                output.emit({"id": folder.id, "folder": str(folder.path)} | asdict(report))
            else:
                for line in summary(report):
                    output.line(line)
                for line in _what_next(report):
                    output.note(line)
            return STATUS[state]
        said = message or f"{folder.id} is {state}."
        if as_json:
            output.emit({"id": folder.id, "state": state, "error": said})
        output.note(said)
        return STATUS[state]

    return tell


def summary(report: Report) -> Iterator[str]:
    """A report for people: the figures that there are, then the first faults and the warnings."""
    for name, value in _figures(report):
        if value not in (None, ""):
            yield f"{name + ':':<18}{value}"
    for fault in report.faults[:SHOWN_FAULTS]:
        field = f"{fault['field']} " if fault["field"] else ""
        yield output.one_line(f"row {fault['row']} of {fault['file']}: {field}{fault['reason']}", LINE)
    yield from report.warnings


def _figures(report: Report) -> Iterator[tuple[str, str | None]]:
    yield "dataset", report.dataset
    yield "rows", f"{report.rows:,}, {report.valid:,} of them valid"
    for figure in FINDINGS:
        count = getattr(report, figure)
        within = f" (among the first {report.near_rows:,} different rows)" if figure == "near_duplicates" else ""
        yield figure.removesuffix("_total").replace("_", " "), None if count is None else f"{count:,}{within}"
    cuts = {"answer": "the end of the answer", "turns": "the oldest turns", "source": "the middle", "row": "everything"}
    yield "cut", ", ".join(f"{count:,} lose {cuts.get(kind, kind)}" for kind, count in (report.cut or {}).items())
    classes = list((report.classes or {}).items())
    more = f" and {len(classes) - SHOWN_CLASSES} more" if len(classes) > SHOWN_CLASSES else ""
    yield "classes", ", ".join(f"{label} {count:,}" for label, count in classes[:SHOWN_CLASSES]) + more
    if tokens := report.tokens:
        total = tokens["total"]
        lengths = ", ".join(f"{key} {total[key]:,.0f}" for key in ("mean", "p50", "p95", "p99", "max"))
        yield "tokens", f"{total['sum']:,} ({tokens['model']}, template {tokens['template']})"
        yield "tokens a row", f"{lengths}; cutoff {tokens['max_length']:,}"
        yield "learned", f"{tokens['supervised']:,} tokens, {100 * tokens['supervised_share']:.0f} %"
        yield "steps an epoch", f"{tokens['steps_per_epoch']:,}"
    yield "took", f"{report.seconds:.1f} s"


def _what_next(report: Report) -> Iterator[str]:
    kinds = [kind for figure, kind in FINDINGS.items() if getattr(report, figure)]
    if kinds:
        yield f"See the rows: studio data show {report.dataset} --finding {'|'.join(kinds)}"
        yield f"Leave some out: studio data derive {report.dataset} REMEDY --name NEW (studio data derive --help)"


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(f"'{text}' is not a share. Give numbers such as 0.8,0.1,0.1.") from None


def _without_nones(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
