"""From the name of a base model to a checked local folder: the bundled one, a folder, or a hub id.

A folder is accepted only if it can be loaded without running anyone's code: safetensors weights, all of them, and a
tokenizer.json. Not here: loading the weights (studio.engine.models.load).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from studio.engine.models import bundled
from studio.engine.models.bundled import Progress
from studio.errors import ModelError, unknown
from studio.specs import BUNDLED_MODEL

HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
WANTED = ["*.safetensors", "*.json", "*.jinja", "merges.txt", "vocab.txt", "tokenizer.model"]
UNWANTED = ["*/*", "consolidated*"]
"""Files in subfolders and `consolidated` ones are the same weights in other layouts."""

TRUSTED = "STUDIO_TRUSTED_MODELS"
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
OR_BUNDLED = f"The bundled model {BUNDLED_MODEL} needs no hub, and neither does a model's folder on this machine."

Kind = Literal["bundled", "folder", "hub"]
Download = Callable[[str, str | None, Progress], str]


@dataclass(frozen=True)
class Peek:
    """Whether a model could be loaded now, without a download. where: its folder, or an empty text if there is none."""

    ready: bool
    where: str
    kind: Kind


def resolve(name: str, revision: str | None = None, *, progress: Progress, download: Download | None = None) -> Path:
    """The local, checked folder of a model, downloaded first if need be.

    progress: see studio.engine.models.bundled. download: (hub id, revision, progress) -> folder.
    Raises: ModelError: there is no such model, it cannot be had, or it could not be loaded safely.
    """
    kind = _kind(name)
    if kind == "bundled":
        return bundled.fetch(progress)
    if kind == "folder":
        folder = Path(name).expanduser().resolve()
        if not folder.is_dir():
            raise ModelError(
                f"There is no model folder {folder}. Correct the path, or name a hub id or {BUNDLED_MODEL}."
            )
    else:
        progress("download", None, None)
        folder = Path((download or _snapshot)(name, revision, progress))
    _raise_if_any(name, [*_faults(folder), *_needs_own_code(folder)])
    return folder


def peek(name: str) -> Peek:
    """What is known of a model without network and without the heavy libraries, for the page.

    Raises: ModelError: the name can be no model at all.
    """
    kind = _kind(name)
    if kind == "bundled":
        return Peek(True, str(bundled.folder()), kind) if bundled.is_ready() else Peek(False, "", kind)
    folder = Path(name).expanduser().resolve() if kind == "folder" else _cached(name)
    if folder is None or not folder.is_dir():
        return Peek(False, "", kind)
    return Peek(not _faults(folder), str(folder), kind)


def identity(folder: Path) -> str:
    """A sha256 that tells two bases of the same shape apart: over config, tensor names and shapes, and sampled weights.

    Reads about 300 KiB per weight file, so it is fast at any size; it is no proof that every byte is intact.
    """
    config = _json(folder / "config.json")
    for changing in ("_name_or_path", "transformers_version"):
        config.pop(changing, None)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for path in weight_files(folder):
        header, start = _header(path)
        tensors = {key: [value["dtype"], value["shape"]] for key, value in header.items() if key != "__metadata__"}
        digest.update(json.dumps(tensors, sort_keys=True).encode())
        for block in _samples(path, start):
            digest.update(block)
    return digest.hexdigest()


def stored_dtypes(folder: Path) -> frozenset[str]:
    """The types of a folder's tensors, in safetensors' words: BF16, F32 and the like. Raises: ModelError: damaged."""
    headers = [_header(path)[0] for path in weight_files(folder)]
    return frozenset(value["dtype"] for header in headers for key, value in header.items() if key != "__metadata__")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the weights, whether they exist or not, in the order of their names.

    Raises: ModelError: the index cannot be read.
    """
    if (folder / WHOLE).exists() or not (folder / INDEX).exists():
        return [folder / WHOLE]
    names = _json(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not all(
        isinstance(each, str) and Path(each).name == each for each in names.values()
    ):
        raise ModelError(f"{folder / INDEX} has no usable weight_map. Download the model again.")
    return [folder / name for name in sorted(set(names.values()))]


def _kind(name: str) -> Kind:
    """Which of the three a name is. An existing folder wins over a hub id of the same look.

    Raises: ModelError: none of them.
    """
    if name == BUNDLED_MODEL:
        return "bundled"
    path = Path(name).expanduser()
    has_separator = "/" in name or "\\" in name
    if name.startswith("~") or path.is_absolute() or (has_separator and path.is_dir()):
        return "folder"
    if HUB_ID.fullmatch(name):
        return "hub"
    if has_separator:
        return "folder"
    hint = f" To use the folder {name} here, write ./{name}." if path.is_dir() else ""
    raise ModelError(
        f"{unknown('model', name, [BUNDLED_MODEL])} A hub id is owner/name; a folder is a path with a slash.{hint}"
    )


def _faults(folder: Path) -> list[str]:
    """Everything about a folder that would keep it from being loaded safely and whole."""
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        return [f"{folder} holds an adapter, not a base model. Name the base that it was trained on."]
    faults = []
    try:
        _json(folder / "config.json")
    except ModelError as error:
        faults.append(str(error))
    if not (folder / "tokenizer.json").is_file():
        faults.append(
            "tokenizer.json is missing. Load the tokenizer with transformers' AutoTokenizer and save it here; "
            "that writes one."
        )
    return faults + _weight_faults(folder)


def _weight_faults(folder: Path) -> list[str]:
    try:
        files = weight_files(folder)
    except ModelError as error:
        return [str(error)]
    missing = [path.name for path in files if not path.is_file()]
    if missing == [WHOLE]:
        return [_no_safetensors(folder)]
    if missing:
        return [f"Weights named in {INDEX} are missing: {', '.join(missing[:8])}. Download the model again."]
    faults = []
    for path in files:
        try:
            _header(path)
        except ModelError as error:
            faults.append(str(error))
    return faults


def _no_safetensors(folder: Path) -> str:
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        return (
            f"Its weights are pickle files ({', '.join(pickles[:3])}), which can run code when they are loaded, so "
            "they are refused. Where you trust them, convert them once: load the model with transformers and call its "
            "save_pretrained, which writes safetensors."
        )
    return f"There is no {WHOLE} and no {INDEX}. Only safetensors weights are loaded."


def allows_code(folder: Path) -> bool:
    """Whether whoever started this process allows the code of the model in a folder to run.

    Only the environment says so, where no page, file or spec can reach it: TRUSTED lists their folders.
    """
    names = filter(None, os.environ.get(TRUSTED, "").split(os.pathsep))
    return any(Path(name).expanduser().resolve() == folder.resolve() for name in names)


def _needs_own_code(folder: Path) -> list[str]:
    """A model with `auto_map` brings Python files. That is well only if transformers knows its type without them."""
    config = _json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if not config.get("auto_map") or _transformers_knows(config.get("model_type")) or allows_code(folder):
        return []
    return [
        f"Its config.json names code of its own (auto_map) for the type {config.get('model_type')!r}. That code can do "
        "whatever you can do on this machine, so it is not run. Choose a model of a type that transformers knows. Or "
        "have the model with its code in a folder, read that code, and if you trust it, start the studio, or its "
        f"command in the shell, with {TRUSTED}=FOLDER in the environment."
    ]


def _transformers_knows(model_type: Any) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return model_type in CONFIG_MAPPING_NAMES


def _raise_if_any(name: str, faults: Iterable[str]) -> None:
    faults = list(faults)
    if faults:
        raise ModelError(f"The model {name} cannot be used. " + "\n".join(faults))


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing, so this is not a model folder.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}. Download the model again.") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} does not hold a JSON object. Download the model again.")
    return values


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """A safetensors file's table of tensors, and where their bytes start. Layout: u64 length, JSON, tensor bytes.

    Raises: ModelError: it is damaged or cut short.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(path.stat().st_size, 100 << 20):
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        ends = [tensor["data_offsets"][1] for key, tensor in header.items() if key != "__metadata__"]
        if 8 + length + max(ends, default=0) != path.stat().st_size:
            raise ValueError("its size is not what its header says")
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} is damaged or cut short: {error}. Download the model again.") from error
    return header, 8 + length


def _samples(path: Path, start: int, *, blocks: int = 64, size: int = 4096) -> Iterable[bytes]:
    """The first 64 KiB of the tensors' bytes, and evenly spaced blocks up to the last."""
    room = max(path.stat().st_size - start - size, 0)
    with path.open("rb") as file:
        file.seek(start)
        yield file.read(64 << 10)
        for number in range(blocks):
            file.seek(start + room * number // (blocks - 1))
            yield file.read(size)


def _cached(name: str) -> Path | None:
    """Where the hub's cache holds the newest known revision of a model."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def _snapshot(name: str, revision: str | None, progress: Progress, **place: str) -> str:
    """Download what a model needs into the hub's cache, and none of the files that can hold code.

    place: `endpoint` and `cache_dir`, where they are not the usual ones. HF_HUB_OFFLINE is respected by the library.
    """
    from huggingface_hub import errors, snapshot_download

    # HTTPError is that of the HTTP library of the installed version; not every one of its errors is an OSError
    failures = (OSError, ValueError, errors.HTTPError, errors.XetDownloadError)
    try:
        return snapshot_download(
            name,
            revision=revision,
            allow_patterns=WANTED,
            ignore_patterns=UNWANTED,
            tqdm_class=_bar(progress),
            **place,
        )
    except failures as error:
        raise ModelError(f"{_why(name, revision, error)} {OR_BUNDLED}") from error


def _why(name: str, revision: str | None, error: Exception) -> str:
    """A failed download in one sentence or two."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        return f"{name} is gated: accept its terms on the hub, and log in with `hf auth login`."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"The hub has no model {name}, or it is private. Check the spelling, or log in with `hf auth login`."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name} has no revision {revision!r}. Leave the revision empty for the newest."
    if isinstance(error, errors.HFValidationError):
        return f"'{name}' cannot be a hub id."
    if constants.HF_HUB_OFFLINE:
        return f"{name} is not in the cache, and HF_HUB_OFFLINE forbids a download."
    reached = "cannot be reached" if not isinstance(error, errors.HfHubHTTPError) else "answered with an error"
    detail = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
    return f"{name} cannot be downloaded: the hub {reached} ({detail[0][:200]})."


def _bar(progress: Progress) -> type:
    """The hub library tells its progress to a tqdm class; this one tells ours, and prints nothing."""
    from tqdm.auto import tqdm

    class Bar(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            if self.unit == "B":
                progress("download", int(self.n), int(self.total) if self.total else None)
            return shown

        def display(self, *_: Any, **__: Any) -> None:
            return None

    return Bar
