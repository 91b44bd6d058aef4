"""Whole LLaMA-Factory data folders and datasets of the hub, taken in and registered.

Nothing is fetched because a file says so: an entry of a data folder that lies on the hub is told, and fetched only when
the user names its id. Not here: reading a description (catalogue), the hub itself (hub), single files (intake).
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from studio.data import catalogue, formats, intake, registry
from studio.data import hub as the_hub
from studio.data.catalogue import Entry
from studio.data.example import Row
from studio.data.intake import Intake, Stopped, Watch
from studio.data.registry import Dataset
from studio.errors import DataError, StudioError, unknown
from studio.home import checked_name

TOLD_ROWS = 1000
"""Rows of the hub between two looks at whether somebody wants to stop."""


@dataclass(frozen=True)
class Outcome:
    """What became of one entry of a data folder: a dataset, or the reason why there is none."""

    name: str
    dataset: Dataset | None
    reason: str = ""


def described(path: Path) -> bool:
    """Whether a path is a data folder with a description, or the description itself."""
    return path.name == catalogue.FILE_NAME or (path.is_dir() and (path / catalogue.FILE_NAME).is_file())


def folder(
    path: Path,
    only: Collection[str] | None = None,
    prefix: str = "",
    *,
    max_rows: int | None = None,
    watch: Watch | None = None,
) -> list[Outcome]:
    """Register the entries of a data folder, or only the named ones; the names get the prefix.

    An entry that cannot be used does not stand in the way of the others. Nothing is registered before all were read.
    Raises: DataError: the description cannot be read, or has no such entry. Stopped: nothing was registered.
    """
    entries = _chosen(catalogue.read(path), only)
    taken: dict[str, Intake | str] = {}
    try:
        for entry in entries:
            taken[entry.name] = _taken(entry, prefix, max_rows, watch)
        return [_registered(entry, prefix + entry.name, taken[entry.name]) for entry in entries]
    finally:
        for each in taken.values():
            if isinstance(each, Intake):
                each.discard()


def from_hub(
    repo: str,
    *,
    subset: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    max_rows: int | None = None,
    watch: Watch | None = None,
) -> Intake:
    """Take in the rows of a dataset of the hub. The commit that they come from is kept in the intake's notes.

    Raises: DataError: there is no such dataset, it cannot be reached, or it is refused. Stopped.
    """
    commit = the_hub.pinned(repo, revision)
    chosen = {"split": split} if split else {}
    rows = the_hub.rows(repo, subset=subset, revision=commit, **chosen)
    notes = {"hub": repo, "subset": subset or "", "split": split or "train", "revision": commit}
    return intake.taken(
        _watched(islice(rows, max_rows), watch or Watch()),
        format,
        columns,
        tags,
        title=repo,
        notes={key: value for key, value in notes.items() if value},
    )


def _chosen(entries: list[Entry], only: Collection[str] | None) -> list[Entry]:
    if only is None:
        return entries
    known = [entry.name for entry in entries]
    if wrong := [name for name in only if name not in known]:
        raise DataError("\n".join(unknown("entry", name, known) for name in wrong))
    return [entry for entry in entries if entry.name in only]


def _taken(entry: Entry, prefix: str, max_rows: int | None, watch: Watch | None) -> Intake | str:
    """The rows of an entry, or why there are none."""
    if entry.problem:
        return entry.problem
    if entry.file is None:
        return f"lies on the hub as {entry.hub}. To fetch it: studio data add {_asked_for(entry)}"
    try:
        checked_name(prefix + entry.name, "dataset name")
        if problem := catalogue.sha1_problem(entry):
            return problem
        return intake.take_in(
            entry.file,
            format=entry.format,
            columns={part: entry.columns.get(part, "") for part in formats.get(entry.format).columns},
            tags=entry.tags,
            max_rows=min((each for each in (entry.num_samples, max_rows) if each is not None), default=None),
            watch=watch,
        )
    except Stopped:
        raise
    except StudioError as error:
        return str(error)


def _asked_for(entry: Entry) -> str:
    """What the user types to fetch an entry. Quoted, because it is text from a file."""
    options = {"--subset": entry.subset, "--split": entry.split, "--revision": entry.revision, "--name": entry.name}
    given = [part for option, value in options.items() if value and value != "train" for part in (option, value)]
    return shlex.join([str(entry.hub), "--hub", *given])


def _registered(entry: Entry, name: str, taken: Intake | str) -> Outcome:
    if isinstance(taken, str):
        return Outcome(name, None, taken)
    try:
        dataset = registry.register(taken, name, origin={"entry": entry.name}, about=entry.about)
    except StudioError as error:
        return Outcome(name, None, str(error))
    return Outcome(name, dataset)


def _watched(rows: Iterable[Row], watch: Watch) -> Iterator[Row]:
    count = 0
    watch.check(0, 0, 0)
    for count, row in enumerate(rows, 1):
        if count % TOLD_ROWS == 0:
            watch.check(0, 0, count)
        yield row
    watch.check(0, 0, count)
