"""Rows of a dataset on the Hugging Face hub, streamed from one commit of it.

Nothing from the hub is executed: the datasets library refuses loading scripts since version 4, and only its readers of
text, tables and JSON are let through here, so no pickle, archive or scientific container is opened. A hub id is fetched
only because the user typed it. Not here: local files (studio.data.readers), what a row means (studio.data.formats).
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from studio.data import decoding
from studio.data.example import Row
from studio.errors import DataError, unknown

HUB_ID = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]{0,95}/)?[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
"""owner/name, or the bare name of one of the oldest datasets."""
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
BUILDERS = ("arrow", "csv", "json", "parquet", "text")
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".npy", ".npz")
DATA = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".txt")
NO_DATA = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json")
"""Files about the rows that the datasets library wrote beside them."""
BATCH_ROWS = 64
"""Rows that are unfolded at a time. A parquet file of a few hundred bytes can hold rows of a megabyte each."""
MIN_UNFOLDED_BYTES, MAX_UNFOLDING = 100 * 1024**2, 200
"""Rows may take this much, or this many times the bytes of the whole repository, if that is more."""
MAX_CARD_BYTES = 4 * 1024**2

_AS_THEY_ARE = ("string", "large_string", "bool", "int8", "int16", "int32", "int64")
_CARDS = ("README.md", ".huggingface.yaml")


def checked_id(text: str) -> str:
    """The id itself if it is owner/name, or a bare name.

    Raises: DataError: it is an address, a path, or no id at all.
    """
    if "://" in text or text.startswith(("www.", "huggingface.co")):
        raise DataError(f"'{text[:200]}' is an address. Give the hub id alone, such as owner/name.")
    if text.startswith((".", "/", "~", "\\")) or text.count("/") > 1 or "\\" in text:
        raise DataError(f"'{text[:200]}' is a path, not a hub id. A hub id is owner/name.")
    if not HUB_ID.fullmatch(text) or ".." in text or "--" in text:
        raise DataError(
            f"'{text[:200]}' cannot be a hub id. A hub id is owner/name, of letters, digits, dots, dashes and "
            "underscores."
        )
    return text


def pinned(repo: str, revision: str | None = None) -> str:
    """The commit that a revision of a dataset is now, 40 hex digits; without a revision, that of its main branch.

    Raises: DataError: see rows.
    """
    return str(_about(checked_id(repo), revision).sha)


def rows(
    repo: str,
    *,
    subset: str | None = None,
    split: str = "train",
    revision: str | None = None,
    folder: str | None = None,
) -> Iterator[Row]:
    """The rows of one split, from 1, as they arrive. A token is taken from HF_TOKEN in the environment, if it is there.

    Dates and decimals become text, class numbers their names; bytes, pictures and sound become null. revision: a
    branch, tag or commit. folder: only the files below it.

    Raises: DataError: the hub cannot be reached, the dataset is not there or may not be read, it holds what is not
        read here, or a subset or split must be chosen. The same while rows are read, where a file of it is broken.
    """
    about = _about(checked_id(repo), revision)
    repo = str(about.id)  # an old name leads to the new one
    if not HUB_ID.fullmatch(repo) or "/" not in repo:  # the library takes `json` for its reader of local files
        raise DataError(f"'{repo[:200]}' names no owner. Give the id of the dataset as owner/name.")
    names = [each.rfilename for each in about.siblings or ()]
    _refuse_unreadable(repo, names)
    if folder is not None and _leads_away(folder):
        raise DataError(f"'{folder[:200]}' cannot be a folder of {repo}. Give a path inside it, such as data/en.")
    configs = _configs(repo, about.sha, names)
    if folder is None or subset is not None:  # the library takes a folder as it is, whatever the card declares
        subset = _chosen_subset(repo, subset, configs)
    bound = max(MIN_UNFOLDED_BYTES, MAX_UNFOLDING * sum(each.size or 0 for each in about.siblings or ()))
    return _rows(repo, _opened(repo, subset, split, about.sha, folder), bound)


# --- What the hub says about a dataset ---


def _token() -> str | bool:
    return os.environ.get("HF_TOKEN") or False


def _about(repo: str, revision: str | None) -> Any:
    if revision is not None and (not REVISION.fullmatch(revision) or ".." in revision):
        raise DataError(f"'{revision[:200]}' cannot be a revision. Give a branch, a tag or a commit.")
    hub = _libraries()[0]
    try:
        return hub.HfApi(token=_token()).dataset_info(repo, revision=revision, files_metadata=True)
    except _failures() as error:
        raise DataError(_why(repo, revision, error)) from error


def _refuse_unreadable(repo: str, names: list[str]) -> None:
    """Say plainly what is in a repository without any file of rows."""
    plain = [name.lower().removesuffix(".gz").removesuffix(".zst") for name in names if name not in NO_DATA]
    if any(name.endswith(DATA) for name in plain):
        return
    if pickles := [name for name in names if name.lower().endswith(PICKLES)]:
        raise DataError(
            f"{repo} holds only pickle files and the like ({', '.join(pickles[:3])}), which can run code when they are "
            "read, so they are refused. Choose a dataset of JSON, CSV, Parquet, Arrow or text files."
        )
    if scripts := [name for name in names if name.endswith(".py")]:
        raise DataError(
            f"{repo} needs a loading script ({scripts[0]}), which is code, and is refused. Choose a dataset of files."
        )
    raise DataError(f"{repo} holds no file of rows. Read here are: {', '.join(DATA)}.")


def _configs(repo: str, commit: str, names: list[str]) -> list[Mapping[str, Any]]:
    """The subsets that the dataset's card declares, once it is sure that they point into the dataset itself.

    A card can name any address, or any file of this machine, as the place of the rows; the library would read it.
    """
    hub, _ = _libraries()
    configs: list[Mapping[str, Any]] = []
    for name in (each for each in _CARDS if each in names):
        try:
            path = hub.hf_hub_download(repo, name, repo_type="dataset", revision=commit, token=_token())
        except _failures() as error:
            raise DataError(_why(repo, commit, error)) from error
        found = _front_matter(repo, name, Path(path)).get("configs")
        configs = [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else configs
        for place in (place for each in configs for place in _places([each.get("data_files"), each.get("data_dir")])):
            if _leads_away(place):
                raise DataError(f"The card of {repo} takes rows from outside of it: '{place[:200]}'. This is refused.")
    return configs


def _front_matter(repo: str, name: str, path: Path) -> Mapping[str, Any]:
    import yaml

    from studio.specs.reading import load_yaml

    if path.stat().st_size > MAX_CARD_BYTES:
        raise DataError(f"{name} of {repo} has more than {MAX_CARD_BYTES // 1024**2} MiB, too much for a card.")
    text = path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")
    if name.endswith(".md"):
        match = re.match(r"\ufeff?\s*---[ \t]*\n(.*?)\n---", text, re.DOTALL)
        text = match[1] if match else ""
    try:
        values = load_yaml(text)
    except yaml.YAMLError as error:
        raise DataError(f"{name} of {repo} has a head that is not valid YAML. Its owner has to repair it.") from error
    return values if isinstance(values, Mapping) else {}


def _places(value: Any) -> Iterator[str]:
    """All text in a nest of lists and objects, except the names of splits."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _places([each for key, each in value.items() if key != "split"])
    elif isinstance(value, list):
        for each in value:
            yield from _places(each)


def _leads_away(place: str) -> bool:
    outside = (
        place.startswith(("/", "\\", "~")) or "://" in place or "::" in place or bool(re.match("[A-Za-z]:", place))
    )
    return outside or ".." in re.split(r"[/\\]", place)


def _chosen_subset(repo: str, subset: str | None, configs: list[Mapping[str, Any]]) -> str | None:
    names = [str(each.get("config_name")) for each in configs]
    if subset is not None and not names:
        raise DataError(f"{repo} has no subsets, so there is no '{subset[:80]}'. Leave the subset empty.")
    if subset is not None and subset not in names:
        raise DataError(unknown("subset", subset, names).replace(f"'{subset}'.", f"'{subset}' of {repo}.", 1))
    if subset is not None:
        return subset
    usual = [name for name, each in zip(names, configs, strict=True) if name == "default" or each.get("default")]
    if len(names) > 1 and not usual:
        raise DataError(f"{repo} has several subsets. Choose one of {_listed(names)}.")
    return None


# --- From the stream to rows ---


def _opened(repo: str, subset: str | None, split: str, commit: str, folder: str | None) -> Any:
    _, datasets = _libraries()
    try:
        # Without hf:// a folder of the same name on this machine would be taken instead
        builder = datasets.load_dataset_builder(
            f"hf://datasets/{repo}", name=subset, data_dir=folder, revision=commit, token=_token()
        )
        kind = type(builder).__module__.rpartition(".")[2]
        if kind not in BUILDERS:
            raise DataError(
                f"{repo} would be read as {kind}, which is not read here. Choose a dataset of JSON, CSV, "
                "Parquet, Arrow or text files."
            )
        if hasattr(builder.config, "batch_size"):
            builder.config.batch_size = BATCH_ROWS
        found = builder.as_streaming_dataset()
    except _failures() as error:
        raise DataError(_why(repo, commit, error)) from error
    if split not in found:
        raise DataError(f"{repo} has no split '{split}'. Choose one of {_listed(list(found))}.")
    return found[split].with_format("arrow")


def _rows(repo: str, stream: Any, bound: int) -> Iterator[Row]:
    number = 0
    for features, batch in _batches(repo, stream, bound):
        readers = {name: _value_reader(features.get(name)) for name in (batch[0] if batch else ())}
        changing = [(name, reader) for name, reader in readers.items() if reader is not _same]
        for values in batch:
            number += 1
            for name, reader in changing:
                values[name] = reader(values[name])
            fault = decoding.unfit(values)
            yield Row(number, None, fault) if fault else Row(number, values)


def _batches(repo: str, stream: Any, bound: int) -> Iterator[tuple[Mapping[str, Any], list[dict[str, Any]]]]:
    """What is known of the columns, and some rows as Arrow has them."""
    count = unfolded = 0
    try:
        for table in stream.iter(batch_size=BATCH_ROWS):
            unfolded += table.nbytes
            if unfolded > bound:
                raise DataError(
                    f"{repo} unfolds to more than {bound // 1024**2:,} MiB, far more than its files hold. "
                    "It is refused."
                )
            batch = table.to_pylist()
            count += len(batch)
            yield stream.features or {}, batch
    except _failures() as error:
        raise DataError(
            f"{repo} cannot be read beyond row {count:,}: {_detail(error)} Download its files and add them to see "
            "which rows are wrong."
        ) from error


def _value_reader(feature: Any) -> Callable[[Any], Any]:
    """How the values of a column become plain ones. feature: what the datasets library knows of it, or None."""
    _, datasets = _libraries()
    if isinstance(feature, datasets.Value) and feature.dtype in _AS_THEY_ARE:
        return _same
    if isinstance(feature, datasets.ClassLabel):
        names = feature.names or []
        return lambda value: names[value] if isinstance(value, int) and 0 <= value < len(names) else None
    if isinstance(feature, datasets.Json):
        return lambda value: _plain(json.loads(value)) if isinstance(value, str) else _plain(value)
    if isinstance(feature, dict):
        inner = {key: _value_reader(each) for key, each in feature.items()}
        return lambda value: value and {key: inner.get(key, _plain)(each) for key, each in value.items()}
    if isinstance(feature, datasets.List | datasets.LargeList):
        each_reader = _value_reader(feature.feature)
        return lambda value: value and [each_reader(each) for each in value]
    if hasattr(feature, "decode_example"):
        return lambda _: None  # pictures, sound and the like, which are never decoded
    return _plain


def _same(value: Any) -> Any:
    return value


def _plain(value: Any) -> Any:
    """A value as JSON has it: dates and decimals as text; bytes, and pandas' missing number, as null."""
    if isinstance(value, str | bool | int) or value is None:
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal | timedelta) else None


# --- The libraries and their errors ---


def _libraries() -> tuple[Any, Any]:
    """huggingface_hub and datasets. Imported late: they take a second, and the page starts without them."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import datasets
    import huggingface_hub

    datasets.disable_progress_bars()
    return huggingface_hub, datasets


def _failures() -> tuple[type[Exception], ...]:
    """What the libraries raise for a hub, a file or a schema that is not as they want it; bugs of ours pass through."""
    import pyarrow
    from datasets.exceptions import DatasetsError
    from huggingface_hub import errors

    # TypeError: a column that cannot be cast. RuntimeError: a script; rows nested too deeply. StopIteration: no row
    known = (OSError, ValueError, TypeError, RuntimeError, KeyError, StopIteration)
    return (*known, pyarrow.ArrowException, DatasetsError, errors.HTTPError, errors.XetDownloadError)


def _why(repo: str, revision: str | None, error: Exception) -> str:
    """A failure of the hub in a sentence or two."""
    from huggingface_hub import constants, errors

    chain = list(_chain(error))
    if any(isinstance(each, errors.GatedRepoError) for each in chain):
        return (
            f"{repo} is gated: accept its terms on the hub, set HF_TOKEN in the environment of the studio, and start "
            "it again."
        )
    if any(isinstance(each, errors.RevisionNotFoundError) for each in chain):
        return f"{repo} has no revision '{revision}'. Leave the revision empty for the newest."
    if any(isinstance(each, errors.RepositoryNotFoundError) for each in chain):
        return (
            f"The hub has no dataset {repo}, or it is private.{_nearest(repo)} Check the spelling; for a private one, "
            "set HF_TOKEN in the environment of the studio."
        )
    if constants.HF_HUB_OFFLINE:
        return f"{repo} cannot be fetched: HF_HUB_OFFLINE is set. Unset it, or choose files of this machine."
    if any(isinstance(each, errors.HfHubHTTPError) for each in chain):
        return f"{repo} cannot be fetched: the hub answered with an error. {_detail(error)} Try again later."
    if any(isinstance(each, errors.HTTPError | ConnectionError | TimeoutError) for each in chain):
        return (
            f"{repo} cannot be fetched: the hub cannot be reached. {_detail(error)} Files of this machine need no hub."
        )
    return f"{repo} cannot be read: {_detail(error)}"


def _nearest(repo: str) -> str:
    """A dataset of the same owner whose name is near, as a question; empty if there is none or the hub is silent."""
    owner, _, name = repo.rpartition("/")
    if not owner:
        return ""
    hub, _ = _libraries()
    try:
        names = [each.id.partition("/")[2] for each in hub.HfApi(token=_token()).list_datasets(author=owner, limit=200)]
    except _failures():
        return ""
    near = difflib.get_close_matches(name, names, n=1)
    return f" Did you mean '{owner}/{near[0]}'?" if near else ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _detail(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "A row of it is nested too deeply."
    if any(isinstance(each, StopIteration) for each in _chain(error)):
        return "A file of it is empty: 0 rows."
    text = next((told for each in _chain(error) if (told := " ".join(str(each).split()))), type(error).__name__)[:300]
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
