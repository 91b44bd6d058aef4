"""What a run goes on from: one adapter, several that are merged into one, or the weights of a whole model.

Copies of it lie beside the run's checkpoints, so that a run can be resumed when the earlier one is gone, and a
preference still has its reference. Not here: who finds the folder of an earlier run (studio.jobs), and the template
that goes with it (studio.engine.train).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import MODEL_TYPE_TO_PEFT_MODEL_MAPPING, PeftConfig, PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file

from studio.engine.fitting import check_adapter, damage
from studio.engine.held import CONFIG, WEIGHTS, check_whole
from studio.engine.methods.tuning import ADAPTER, Context
from studio.engine.models.load import recorded
from studio.engine.models.resolve import weight_files
from studio.errors import Fault, ModelError
from studio.specs import Method, StartSpec, TrainSpec
from studio.templates import Template

WANTED = (CONFIG, "*.safetensors", "*.safetensors.index.json", "studio.json", "config.json")
"""What is copied. A file that could run code is none of it."""
KINDS: Mapping[str, str] = {
    "LORA": "lora",
    "LOHA": "loha",
    "LOKR": "lokr",
    "OFT": "oft",
    "BOFT": "boft",
    "VERA": "vera",
    "RANDLORA": "randlora",
    "VBLORA": "vblora",
    "FOURIERFT": "fourierft",
    "HRA": "hra",
    "MISS": "miss",
    "IA3": "ia3",
    "PROMPT_TUNING": "prompt_tuning",
}
"""Kinds of method whose outcome can train on, by PEFT's name for it. A mixture of adaptations ends as a plain lora."""
ALSO = ("full", "ln_tuning", "freeze", "bitfit", "bottleneck")
"""Those that are known by what the run recorded."""


@dataclass(frozen=True)
class Start:
    """One thing to go on from. name: as the spec names it. folder: what it left."""

    name: str
    folder: Path

    @property
    def whole(self) -> bool:
        """Whether it is a whole model."""
        return not (self.folder / CONFIG).is_file() and (self.folder / "config.json").is_file()

    def config(self) -> dict[str, Any]:
        """adapter_config.json. Raises: OSError, ValueError: it cannot be read."""
        return json.loads((self.folder / CONFIG).read_text(encoding="utf-8"))

    def kind(self) -> str | None:
        """The kind of method that made it, as far as it can go on; None: it cannot."""
        kind = recorded(self.folder, "method")
        if kind in ALSO:
            return kind
        return "full" if self.whole else KINDS.get(str(self.config().get("peft_type")))


def gather(names: Sequence[str], folders: Callable[[], Sequence[Path]], place: Path) -> list[Start]:
    """Copy what a run goes on from beside its checkpoints, or take the copies of an earlier attempt.

    folders: where it lies, in the order of the names; only asked at the first attempt. place: a folder for the copies.
    """
    if names and not place.is_dir():
        scratch = place.with_name(f".{place.name}")
        shutil.rmtree(scratch, ignore_errors=True)
        for number, folder in enumerate(folders()):
            _copy(folder, scratch / str(number))
        scratch.replace(place)
    return [Start(name, place / str(number)) for number, name in enumerate(names)]


def start_faults(spec: TrainSpec, starts: Sequence[Start], base: Path, template: Template, task: str) -> list[Fault]:
    """Everything that keeps a run from going on from these, before anything loads."""
    faults = [fault for start in starts for fault in _faults(start, spec, base, template, task)]
    return faults or list(_mixed(starts, spec.start))


def going_on(method: Method) -> Method:
    """The method without what only a fresh start can have."""
    values = {"init": "default", "dora": False, "train_tokens": (), "split_fused": False}
    return method.model_copy(
        update={name: value for name, value in values.items() if name in type(method).model_fields}
    )


def go_on(model: Any, starts: Sequence[Start], context: Context) -> Any:
    """Put an earlier adapter on the base, as it was shaped, so that it trains on; or several, merged into one.

    Raises: ModelError: it does not fit this base, or holds what is no number.
    """
    names = [ADAPTER] if len(starts) == 1 else [f"start{number}" for number in range(len(starts))]
    wrapped: Any = None
    for name, start in zip(names, starts, strict=True):
        try:
            wrapped = _loaded(wrapped or model, start, name, context.task)
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, OSError, SafetensorError) as error:
            shapes = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
            raise ModelError(f"{start.name} does not fit this base: {(shapes or [str(error)])[0][:300]}") from error
    if len(starts) > 1:
        _merge(wrapped, names, context.spec.start)
    return wrapped


def _merge(model: Any, names: Sequence[str], wanted: StartSpec) -> None:
    """Weighted sums of the factors, as PEFT makes them; TIES and DARE first leave small or random values out."""
    weights = list(wanted.weights) or [1 / len(names)] * len(names)
    sparse = {} if wanted.combination == "linear" else {"density": wanted.density}
    model.add_weighted_adapter(list(names), weights, ADAPTER, combination_type=wanted.combination, **sparse)
    model.set_adapter(ADAPTER)
    for name in names:
        model.delete_adapter(name)


def _loaded(model: Any, start: Start, name: str, task: str) -> Any:
    config = PeftConfig.from_pretrained(str(start.folder))
    config.inference_mode, config.task_type = False, task
    if hasattr(config, "init_lora_weights"):
        config.init_lora_weights = True  # others change the base's weights, which the saved adapter no longer expects
    if isinstance(model, PeftModel):
        model.add_adapter(name, config)
    else:
        model = MODEL_TYPE_TO_PEFT_MODEL_MAPPING[task](model, config, adapter_name=name)
    loaded = model.load_adapter(str(start.folder), name, is_trainable=True)
    check_whole(model, name, load_file(start.folder / WEIGHTS), loaded)
    return model


def _copy(folder: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for path in (path for pattern in WANTED for path in folder.glob(pattern)):
        try:
            os.link(path, target / path.name)  # files of a finished save are never written again
        except OSError:
            shutil.copyfile(path, target / path.name)


def _faults(start: Start, spec: TrainSpec, base: Path, template: Template, task: str) -> Iterator[Fault]:
    field = "start.adapters"
    try:
        reason = _unusable(start)
        if reason is None:
            check_adapter(start.folder, base)
    except (OSError, ValueError, ModelError) as error:
        reason = str(error)
    if reason is not None:
        yield Fault(field, f"{start.name}: {reason}")
        return
    yield from _wrong_method(start, spec)
    labels = recorded(start.folder, "labels")
    if (labels is not None) != (task == "SEQ_CLS"):
        has, wants = ("has a head", "writes text") if labels is not None else ("has no head", "needs one")
        yield Fault(field, f"{start.name} {has}, but the stage {spec.stage.kind} {wants}. Go on from another run.")
    if getattr(spec.stage, "head", "whole") != "whole":
        yield Fault("stage.head", f"is {spec.stage.head}, which only a fresh start can have. Set it to whole.")
    kept = recorded(start.folder, "template")
    if isinstance(kept, dict) and task == "CAUSAL_LM" and kept.get("text") != template.text:
        yield Fault(
            "template.name",
            f"is {template.name}, but {start.name} was trained with {kept.get('name')}, and would have to learn "
            "anew how a conversation is written. Set it to auto, which takes that one.",
        )


def _unusable(start: Start) -> str | None:
    """Why a folder cannot be gone on from, by its files alone."""
    folder = start.folder
    if start.whole:
        return next((why for path in weight_files(folder) if (why := damage(path))), None)
    if not (folder / CONFIG).is_file():
        return f"it holds no adapter: {CONFIG} is missing. Name an earlier run, or the folder of an adapter."
    if not (folder / WEIGHTS).is_file():
        return f"{WEIGHTS} is missing. Only safetensors weights are loaded, since others can run code."
    return None


def _wrong_method(start: Start, spec: TrainSpec) -> Iterator[Fault]:
    kind = start.kind()
    if kind == "lora" and start.config().get("trainable_token_indices"):
        yield Fault(
            "start.adapters",
            f"{start.name} has trained tokens beside it, which cannot go on training. Export it merged, and name that "
            "folder in model.name.",
        )
    elif kind is None:
        made = recorded(start.folder, "method") or start.config().get("peft_type", "an unknown method").lower()
        yield Fault(
            "start.adapters",
            f"{start.name} was made by {made}, which cannot go on training. Export it merged, and name that folder "
            "in model.name.",
        )
    elif kind == "full" and spec.method.kind != "full":
        yield Fault(
            "start.adapters",
            f"{start.name} is a whole model. To put {spec.method.kind} on it, export it, and name that folder in "
            "model.name; or set method.kind to full.",
        )
    elif kind != spec.method.kind:
        yield Fault("method.kind", f"is {spec.method.kind}, but {start.name} is made by {kind}. Set it to {kind}.")


def _mixed(starts: Sequence[Start], wanted: StartSpec) -> Iterator[Fault]:
    """What keeps several from being merged into one."""
    if len(starts) < 2:
        return
    field = "start.adapters"
    if kinds := sorted({str(start.kind()) for start in starts} - {"lora"}):
        yield Fault(field, f"several can only be merged if they are lora, not {', '.join(kinds)}. Name one.")
        return
    configs = [start.config() for start in starts]
    ranks = [config.get("r") for config in configs]
    if len(set(ranks)) > 1 or any(config.get("rank_pattern") for config in configs):
        shown = ", ".join(f"{start.name}: {rank}" for start, rank in zip(starts, ranks, strict=True))
        yield Fault(field, f"can only be merged if all layers have the same rank, but it is {shown}. Name others.")
    for start, config in zip(starts, configs, strict=True):
        beside = ("modules_to_save", "trainable_token_indices", "use_dora", "lora_bias")
        if found := [name for name in beside if config.get(name)]:
            yield Fault(field, f"{start.name} cannot be merged with others: it has {', '.join(found)}. Name one.")
