"""Everything that can be refused before a model loads, all of it together, each with the remedy.

Not here: limits of single fields and what rules each other out in a spec (studio.specs), and what only the rows show
(studio.data.selection).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from studio.engine.counting import target_faults
from studio.engine.extra import read_extra
from studio.engine.models.quantised import SCHEMES, bits_of, scheme_of
from studio.errors import Fault, ModelError, SpecError
from studio.hardware import Choice, Hardware
from studio.specs import TrainSpec, ability

Choices = Mapping[str, Choice]
REPORTERS = {"tensorboard": ("tensorboard", "tensorboardX"), "trackio": ("trackio",), "wandb": ("wandb",)}
REPORTERS |= {"mlflow": ("mlflow",)}
"""Modules of which one must be there to report to each."""


@dataclass(frozen=True)
class _Need:
    """field: what asks for the package. package: its name for pip."""

    field: str
    purpose: str
    package: str


def check_alone(spec: TrainSpec, machine: Hardware, choices: Choices, config: type) -> list[Fault]:
    """What is wrong whatever the base is. config: the config class of the stage's trainer."""
    _, extra = read_extra(spec.trainer, config, spec.stage)
    return [*_precision(spec, machine), *_missing(_needs(spec, choices)), *extra]


def check_with_base(spec: TrainSpec, base: Path, machine: Hardware, *, fresh: bool = True) -> list[Fault]:
    """What is wrong with this base. base: its folder. fresh: whether the method shapes a new adapter."""
    return [*_positions(spec, base), *_quantised(spec, base, machine), *(_targets(spec) if fresh else ())]


def with_extra(spec: TrainSpec, config: type) -> TrainSpec:
    """The spec with its extra arguments as the config class takes them."""
    read, faults = read_extra(spec.trainer, config, spec.stage)
    refuse(faults)
    return spec.model_copy(update={"trainer": read})


def refuse(faults: Iterable[Fault]) -> None:
    """Raises: SpecError: there are any."""
    if faults := list(faults):
        raise SpecError(faults)


def _precision(spec: TrainSpec, machine: Hardware) -> Iterator[Fault]:
    if machine.gpu is None:
        for field, value in (("training.precision", spec.training.precision), ("model.dtype", spec.model.dtype)):
            if value == "fp16":
                yield Fault(field, "fp16 needs a GPU. Set it to auto, bf16 or fp32.")
        if not machine.bf16 and spec.training.precision == "bf16":
            yield Fault("training.precision", "this CPU has no bf16 arithmetic. Set it to auto or fp32.")
    elif not machine.bf16 and spec.training.precision == "bf16":
        yield Fault("training.precision", f"{machine.gpu} has no bf16. Set it to auto, fp16 or fp32.")


def _needs(spec: TrainSpec, choices: Choices) -> Iterator[_Need]:
    """Every optional package that the run needs and that is not there."""
    for name in spec.training.report_to:
        if not any(find_spec(module) for module in REPORTERS[name]):
            yield _Need("training.report_to", name, name)
    optimizer = choices["training.optimizer"].value
    wants_bitsandbytes = [("training.optimizer", optimizer)] if "bit" in optimizer else []
    if spec.quantization.kind != "none":
        wants_bitsandbytes.append(("quantization.kind", spec.quantization.kind))
    if find_spec("bitsandbytes") is None:
        yield from (_Need(field, value, "bitsandbytes") for field, value in wants_bitsandbytes)
    if getattr(spec.method, "init", None) == "loftq" and find_spec("scipy") is None:
        yield _Need("method.init", "loftq", "scipy")
    if spec.trainer.get("use_liger_kernel") and find_spec("liger_kernel") is None:
        yield _Need("trainer.use_liger_kernel", "it", "liger-kernel")
    if spec.trainer.get("use_vllm") and find_spec("vllm") is None:
        yield _Need("trainer.use_vllm", "it", "vllm")


def _missing(needs: Iterable[_Need]) -> list[Fault]:
    """One fault a field; the command installs all of them at once."""
    needs = list(needs)
    command = f"pip install {' '.join(sorted({need.package for need in needs}))}"
    return [
        Fault(need.field, f"{need.purpose} needs the package {need.package}, which is not installed. Run: {command}")
        for need in needs
    ]


def _positions(spec: TrainSpec, base: Path) -> Iterator[Fault]:
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    positions = next((found for place in (config, *_inner(config)) if (found := _positions_of(place))), None)
    if positions is None:
        return
    if spec.data.max_length > positions:
        yield Fault(
            "data.max_length",
            f"is {spec.data.max_length}, but {spec.model.name} has {positions} positions. Lower it to that.",
        )
    elif (total := spec.data.max_length + getattr(spec.method, "virtual_tokens", 0)) > positions:
        yield Fault(
            "method.virtual_tokens",
            f"and data.max_length are {total} together, but {spec.model.name} has {positions} positions. Lower one.",
        )


def _positions_of(config: Mapping[str, Any]) -> int | None:
    return config.get("max_position_embeddings") or config.get("n_positions")


def _inner(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The part about text of a model that also sees or hears."""
    if isinstance(config.get("text_config"), dict):
        yield config["text_config"]


def _quantised(spec: TrainSpec, base: Path, machine: Hardware) -> Iterator[Fault]:
    """A base that comes quantised stays as it is, and needs the library that made it."""
    name, label = scheme_of(base), spec.model.name
    if name is None:
        return
    scheme = SCHEMES.get(name)
    if scheme is None:
        yield Fault(
            "model.name",
            f"{label} is quantised by {name}, which adapters do not train on here. Choose its full-precision version, "
            f"or one quantised by {', '.join(SCHEMES)}.",
        )
        return
    if spec.quantization.kind != "none":
        yield Fault(
            "quantization.kind",
            f"is {spec.quantization.kind}, but {label} is quantised by {name} already. Set it to none: it is trained "
            "on as it is.",
        )
    if scheme.methods is None:
        can = ability(spec.method)
        if not (can.nf4 if bits_of(base) == 4 else can.int8):
            yield _cannot(spec, name)
    elif spec.method.kind not in scheme.methods or spec.method.variants != ("lora",):
        yield _cannot(spec, name)
    needs = (
        _Need("model.name", f"{label}, quantised by {name},", pip)
        for module, pip in scheme.packages
        if find_spec(module) is None
    )
    yield from _missing(needs)
    if machine.gpu is None and not scheme.on_cpu:
        yield Fault("model.name", f"{label} is quantised by {name}, which needs a GPU. Choose another version of it.")


def _cannot(spec: TrainSpec, name: str) -> Fault:
    variants = " and ".join(spec.method.variants)
    return Fault("method.kind", f"{variants} cannot train on a base quantised by {name}. Set it to plain lora.")


def _targets(spec: TrainSpec) -> list[Fault]:
    """Names of layers that the model does not have; nothing where its layers are not known before it loads."""
    try:
        return target_faults(spec)
    except ModelError:
        return []
