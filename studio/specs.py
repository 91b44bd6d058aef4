"""What a user can ask for: TrainSpec, EvaluateSpec and ExportSpec.

Every field, default, limit and help text exists here once: the page's form, the command line, YAML files and the
Python API all read this module. The docstring under a field is its help. Fields marked `front` stand in sight on the
page; the others are folded. Not here: what "auto" means on this machine (studio.hardware), anything that loads.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from studio.errors import Fault, SpecError

FRONT = {"front": True}
BUNDLED_MODEL = "smollm2-135m-instruct"

Precision = Literal["auto", "fp32", "bf16", "fp16"]


class Section(BaseModel):
    """A part of a spec: frozen, and strict about names."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, protected_namespaces=()
    )


class ModelSpec(Section):
    """Which language model is the base."""

    name: str = Field(BUNDLED_MODEL, min_length=1, max_length=400, json_schema_extra=FRONT)
    """The base model: the bundled smollm2-135m-instruct, a hub id such as owner/name, or a local folder."""
    revision: str | None = None
    """Branch, tag or commit on the hub. Empty means the newest."""
    dtype: Precision = "auto"
    """Precision of the base weights that are not quantised. auto: bf16 where the device computes in it, else fp32."""


class QuantizationSpec(Section):
    """How the frozen base is held in memory while the adapter trains."""

    kind: Literal["none", "nf4", "fp4", "int8"] = Field("nf4", json_schema_extra=FRONT)
    """nf4 is QLoRA (4 bits a weight); fp4 and int8 are alternatives; none keeps the base in its own precision."""
    double: bool = True
    """Quantise the quantisation constants too: about 0.4 bits less per weight, as in the QLoRA paper (4-bit only)."""


class DataSpec(Section):
    """Which rows are trained on."""

    datasets: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(
        (), max_length=32, json_schema_extra=FRONT
    )
    """Names of registered datasets. Several are concatenated."""
    max_samples: int | None = Field(None, ge=1)
    """Use at most this many rows of each dataset. Empty means all."""
    max_length: int = Field(512, ge=8, le=1_048_576, json_schema_extra=FRONT)
    """Cutoff: tokens of one conversation that are kept. Longer rows lose the end of their answer."""
    validation_share: float = Field(0.0, ge=0.0, le=0.5, json_schema_extra=FRONT)
    """Share of the rows held out for validation, from 0 to 0.5. They are never trained on."""
    seed: int = Field(42, ge=0, le=2**32 - 1)
    """Seed of the split and of the order of the rows."""

    @field_validator("datasets", mode="before")
    @classmethod
    def _one_name_is_a_list(cls, names: Any) -> Any:
        return (names,) if isinstance(names, str) else names

    @field_validator("datasets")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError("data.datasets: a dataset is named twice. Name each once.")
        return names


class TemplateSpec(Section):
    """How a conversation is written as text, and which part of it is learned."""

    name: str = Field("auto", min_length=1, max_length=64, json_schema_extra=FRONT)
    """auto is the model's own chat template; other names are files in templates/."""
    system: str | None = Field(None, max_length=100_000)
    """System text for rows that have none. Empty leaves it to the template."""
    supervise: Literal["assistant", "last", "all"] = "assistant"
    """Which tokens carry loss: every assistant turn, only the last one, or the whole text."""


class LoraMethod(Section):
    """Low-rank adaptation: two small matrices beside each chosen linear layer (arXiv:2106.09685)."""

    kind: Literal["lora"] = "lora"
    """The tuning method: lora (with a quantised base: QLoRA)."""
    rank: int = Field(16, ge=1, le=4096, json_schema_extra=FRONT)
    """Rank of the update. Higher can learn more and costs more memory; 8 to 64 is usual."""
    alpha: float = Field(32, gt=0, le=65_536, json_schema_extra=FRONT)
    """Scaling numerator: the update is multiplied by alpha / rank. Twice the rank is usual."""
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Dropout on the adapter's input, from 0 to below 1."""
    target_modules: tuple[Annotated[str, Field(min_length=1)], ...] = Field(("all-linear",), min_length=1)
    """Layers that get an adapter: all-linear (every linear layer but the output head), or names such as q_proj."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead (rank-stabilised LoRA, arXiv:2312.03732)."""
    dora: bool = False
    """Learn magnitude and direction apart (DoRA, arXiv:2402.09353). Slower, often better at low rank."""


Method = LoraMethod  # becomes a union, discriminated by kind, with the second method


class SftStage(Section):
    """Supervised fine-tuning: learn the answers of example conversations."""

    kind: Literal["sft"] = "sft"
    """The training objective: sft (supervised fine-tuning)."""
    packing: bool = False
    """Fill each sequence up to the cutoff with several rows, kept apart from each other. Fewer, fuller steps."""
    neftune_noise_alpha: float | None = Field(None, gt=0, le=100)
    """Noise on the embeddings while training (NEFTune, arXiv:2310.05914). 5 is usual; empty is off."""


Stage = SftStage  # becomes a discriminated union with the second stage


class TrainingSpec(Section):
    """The optimisation itself."""

    epochs: float = Field(3.0, gt=0, le=10_000, json_schema_extra=FRONT)
    """Passes over the training rows. Fractions are allowed. Ignored when max_steps is set."""
    max_steps: int | None = Field(None, ge=1, le=100_000_000, json_schema_extra=FRONT)
    """Stop after this many optimiser steps. Empty means as many as the epochs take."""
    learning_rate: float = Field(2e-4, gt=0, le=10, json_schema_extra=FRONT)
    """Peak learning rate. 1e-4 to 1e-3 suits LoRA; 1e-5 suits full fine-tuning."""
    batch_size: int = Field(4, ge=1, le=65_536, json_schema_extra=FRONT)
    """Rows per device and forward pass."""
    accumulation: int = Field(2, ge=1, le=65_536, json_schema_extra=FRONT)
    """Forward passes per optimiser step. Effective batch size = batch_size x accumulation."""
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup: float = Field(0.03, ge=0, lt=1)
    """Share of the steps over which the learning rate rises from 0, from 0 to below 1."""
    weight_decay: float = Field(0.0, ge=0, le=1)
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = Field(1.0, gt=0, le=1e6)
    """Gradients are clipped to this norm."""
    optimizer: Literal["auto", "adamw_torch", "adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd"] = "auto"
    """auto: paged 8-bit AdamW on a GPU (as in the QLoRA paper), plain AdamW on a CPU, where 8 bits save no time."""
    precision: Precision = "auto"
    """Precision of the arithmetic. auto: bf16 where the device computes in it, else fp32."""
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Recompute activations in the backward pass: about 30 % slower, much less memory. auto: on only on a GPU."""
    save_steps: int = Field(50, ge=1, le=100_000_000)
    """Optimiser steps between checkpoints. One is always saved at the end and at a stop."""
    save_total_limit: int = Field(3, ge=1, le=10_000)
    """How many checkpoints are kept, newest first."""
    seed: int = Field(42, ge=0, le=2**32 - 1)
    """Seed of the adapter's start, of dropout and of the sampler."""


class EvaluationSpec(Section):
    """What is measured while a run trains."""

    steps: int | None = Field(None, ge=1, le=100_000_000)
    """Optimiser steps between validation losses. Empty: at the end of each epoch. Needs validation rows."""
    prompts: tuple[Annotated[str, Field(min_length=1, max_length=4000)], ...] = Field(("Who are you?",), max_length=16)
    """Fixed prompts that the model answers while it trains, so that the change can be read."""
    sample_steps: int | None = Field(None, ge=1, le=100_000_000)
    """Optimiser steps between sample answers. Empty: at the start, five times on the way, and at the end."""
    max_new_tokens: int = Field(48, ge=1, le=4096)
    """Length limit of a sample answer, in tokens."""


class OutputSpec(Section):
    """What the run is called."""

    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,47}$")
    """Name of the run, up to 48 letters, digits, dots, dashes or underscores. Empty: named after the dataset."""


class TrainSpec(Section):
    """One training run, whole."""

    model: ModelSpec = ModelSpec()
    """Which language model is the base."""
    quantization: QuantizationSpec = QuantizationSpec()
    """How the frozen base is held in memory while the adapter trains."""
    data: DataSpec = DataSpec()
    """Which rows are trained on."""
    template: TemplateSpec = TemplateSpec()
    """How a conversation is written as text, and which part of it is learned."""
    method: Method = LoraMethod()
    """Which parameters train."""
    stage: Stage = SftStage()
    """What the objective is."""
    training: TrainingSpec = TrainingSpec()
    """The optimisation itself."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """What is measured while the run trains."""
    output: OutputSpec = OutputSpec()
    """What the run is called."""

    @model_validator(mode="after")
    def _fits_together(self) -> TrainSpec:
        faults = list(self._contradictions())
        if faults:
            raise ValueError("\n".join(str(fault) for fault in faults))
        return self

    def _contradictions(self) -> Iterable[Fault]:
        if "all-linear" in self.method.target_modules[1:]:
            yield Fault("method.target_modules", "all-linear stands alone. Remove it or the other names.")
        if self.evaluation.steps is not None and self.data.validation_share == 0:
            yield Fault("evaluation.steps", "needs validation rows. Set data.validation_share above 0, or empty this.")


class EvaluateSpec(Section):
    """One evaluation: loss and perplexity on held-out rows, base and adapter, and their answers."""

    run: str = Field(min_length=1, max_length=64, json_schema_extra=FRONT)
    """The training run whose adapter is measured."""
    checkpoint: int | None = Field(None, ge=1, json_schema_extra=FRONT)
    """Step of the checkpoint. Empty means the finished adapter, else the newest checkpoint."""
    dataset: str | None = Field(None, min_length=1, max_length=64, json_schema_extra=FRONT)
    """Registered dataset to measure on. Empty: the rows that the run held out, or, if it held none out, its own."""
    max_samples: int | None = Field(100, ge=1, json_schema_extra=FRONT)
    """Measure at most this many rows. Empty means all."""
    generate: bool = Field(True, json_schema_extra=FRONT)
    """Also let base and adapter answer each row."""
    max_new_tokens: int = Field(64, ge=1, le=4096, json_schema_extra=FRONT)
    """Length limit of an answer, in tokens."""
    batch_size: int = Field(8, ge=1, le=4096)
    """Rows per forward pass."""


class ExportSpec(Section):
    """One export of a training run."""

    run: str = Field(min_length=1, max_length=64, json_schema_extra=FRONT)
    """The training run to export."""
    checkpoint: int | None = Field(None, ge=1, json_schema_extra=FRONT)
    """Step of the checkpoint. Empty means the finished adapter, else the newest checkpoint."""
    format: Literal["merged", "adapter"] = Field("merged", json_schema_extra=FRONT)
    """merged: one folder of full weights that plain transformers loads. adapter: the PEFT adapter alone."""
    dtype: Literal["bf16", "fp16", "fp32"] = Field("bf16", json_schema_extra=FRONT)
    """Precision of the merged weights."""
    out: str | None = Field(None, max_length=1000, json_schema_extra=FRONT)
    """Target folder. It must not exist yet. Empty: exports/ in STUDIO_HOME, named after the run."""


class Sampling(Section):
    """How the next token is chosen while a model answers."""

    temperature: float = Field(0.0, ge=0, le=5, json_schema_extra=FRONT)
    """0 always takes the likeliest token (greedy); 0.7 is livelier; above 1 wanders."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Sample only from the likeliest tokens that together have this probability."""
    top_k: int = Field(0, ge=0, le=1_000_000)
    """Sample only from this many likeliest tokens. 0 is off."""
    repetition_penalty: float = Field(1.0, gt=0, le=10)
    """Above 1, tokens that were already said become less likely. 1 is off."""
    max_tokens: int = Field(256, ge=1, le=131_072, json_schema_extra=FRONT)
    """Length limit of an answer, in tokens."""
    seed: int | None = Field(None, ge=0, le=2**63 - 1)
    """Same seed, same answer. Empty: a new one each time."""


Spec = TrainSpec | EvaluateSpec | ExportSpec
KINDS: dict[str, type[Section]] = {"train": TrainSpec, "evaluate": EvaluateSpec, "export": ExportSpec}


def parse(kind: type[Section], values: Mapping[str, Any]) -> Any:
    """Build a spec from nested plain values.

    Raises: SpecError: with every wrong field, its dotted path, and what to do.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise SpecError(_faults(kind, error)) from error


def load(path: Path, kind: type[Section] = TrainSpec, overrides: Iterable[str] = ()) -> Any:
    """Read a spec from a YAML file and apply `section.field=value` overrides.

    Raises: SpecError: the file cannot be read, is not YAML, or has wrong fields.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError([Fault(str(path), f"cannot be read: {getattr(error, 'strerror', None) or error}.")]) from error
    return parse(kind, with_overrides(read_yaml(text, str(path)), overrides))


def read_yaml(text: str, source: str = "spec") -> dict[str, Any]:
    """The mapping that a YAML text holds.

    Raises: SpecError: it is not YAML, with line and column, or not a mapping.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = f"is not valid YAML{place}: {getattr(error, 'problem', error)}."
        raise SpecError([Fault(source, reason)]) from error
    if not isinstance(values, dict):
        raise SpecError([Fault(source, f"must hold sections such as model: and data:, but holds {_kind(values)}.")])
    return values


def with_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy with `section.field=value` applied; values are read as YAML, so `[a, b]`, `null` and `true` work."""
    result = _copy(values)
    for item in overrides:
        path, separator, text = item.partition("=")
        if not separator or not path.strip():
            raise SpecError([Fault(item, "is not of the form section.field=value.")])
        *sections, field = path.strip().split(".")
        place = result
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise SpecError([Fault(path, f"{section} is a value, not a section.")])
        try:
            place[field] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise SpecError([Fault(path, f"{text!r} is not a YAML value.")]) from error
    return result


def dump(spec: Section, *, only_changes: bool = False) -> str:
    """The spec as YAML, sections in the order of the class. only_changes: leave out what equals the default."""
    values = spec.model_dump(mode="json", exclude_defaults=only_changes)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def changes(spec: Section) -> list[str]:
    """The spec as `section.field=value` overrides of the defaults, for a command line."""

    def flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
        for key, value in values.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}={yaml_value(value)}"

    return list(flat(spec.model_dump(mode="json", exclude_defaults=True)))


def yaml_value(value: Any) -> str:
    """One value as one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _kind(value: Any) -> str:
    names = {"NoneType": "nothing", "list": "a list", "str": "text", "dict": "a section", "int": "a number"}
    return names.get(type(value).__name__, f"a {type(value).__name__}")


def _faults(kind: type[Section], error: ValidationError) -> list[Fault]:
    """Pydantic's errors in our words. A validator over several fields may carry several faults, one per line."""
    faults = []
    for entry in error.errors(include_url=False):
        path = [str(part) for part in entry["loc"]]
        if entry["type"] == "value_error":
            faults += [_split(line, path) for line in str(entry["ctx"]["error"]).splitlines()]
        else:
            faults.append(Fault(".".join(path) or "spec", _reason(kind, path, entry)))
    return faults


def _split(line: str, path: list[str]) -> Fault:
    field, separator, reason = line.partition(": ")
    return Fault(field, reason) if separator else Fault(".".join(path) or "spec", line)


_LIMITS = {
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "too_short": "needs at least {min_length}",
    "too_long": "takes at most {max_length}",
    "string_too_short": "must not be empty",
    "string_too_long": "takes at most {max_length} characters",
    "literal_error": "must be one of {expected}",
    "missing": "is missing. Fill it in",
    "finite_number": "must be a finite number",
    "string_pattern_mismatch": "may hold letters, digits, dots, dashes, underscores, and starts with a letter or digit",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "union_tag_invalid": "has an unknown kind {tag}; known are {expected_tags}",
}


def _reason(kind: type[Section], path: list[str], entry: Mapping[str, Any]) -> str:
    if entry["type"] == "extra_forbidden":
        known = sorted(_fields(kind, path[:-1]))
        near = difflib.get_close_matches(path[-1], known, n=1)
        return f"is not a field. Did you mean {near[0]}?" if near else f"is not a field. Known: {', '.join(known)}."
    if entry["type"] in ("model_type", "model_attributes_type"):
        return f"must be a section with fields, but is {_kind(entry['input'])}."
    text = _LIMITS.get(entry["type"])
    said = text.format(**entry.get("ctx", {})) if text else entry["msg"][0].lower() + entry["msg"][1:]
    given = "" if entry["type"] == "missing" else f", but is {_shown(entry['input'])}"
    return f"{said}{given}."


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _fields(kind: type[Section], path: list[str]) -> set[str]:
    """Names of the fields of the section at a path."""
    section: Any = kind
    for part in path:
        section = section.model_fields[part].annotation
    return set(section.model_fields)
