"""The specs of the jobs: a training run with its model, data and template, an evaluation, an export, an audit.

Fields marked `front` stand in sight on the page; the others are folded. Not here: the unions of methods and stages, the
optimisation (training), YAML (reading), words for what is wrong (faults), and what "auto" means on this machine
(studio.hardware).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from studio.errors import Fault
from studio.specs.abilities import contradictions
from studio.specs.methods import LoraMethod, Method
from studio.specs.section import FRONT, Section
from studio.specs.stages import SftStage, Stage
from studio.specs.training import EvaluationSpec, Precision, StartSpec, TrainerArguments, TrainingSpec

BUNDLED_MODEL = "smollm2-135m-instruct"


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
    """Names of registered datasets. Several are used whole, one after the other, unless they have weights."""
    weights: tuple[float, ...] = Field((), max_length=32)
    """Share of each dataset in the mix, in the order of the datasets: 3 and 1 mix three rows to one. Empty: no mix."""
    repeat: bool = False
    """With weights. Off: the mix ends when a dataset is used up. On: datasets repeat until each was used whole."""
    max_samples: int | None = Field(None, ge=1)
    """Use at most this many rows of each dataset, drawn at random; the first ones if shuffle is off. Empty: all."""
    shuffle: bool = True
    """Take the rows in a random order, a new one in each epoch. Off keeps the order of the file."""
    skip_faulty: bool = False
    """Leave faulty rows out and train on the others. Off: a run on a dataset with faulty rows is refused."""
    max_length: int = Field(512, ge=8, le=1_048_576, json_schema_extra=FRONT)
    """Cutoff: tokens of one conversation that are kept. What longer rows lose is the truncation's choice."""
    truncation: Literal["cut_answer", "drop_turns", "cut_source", "drop_row"] = "cut_answer"
    """What rows beyond the cutoff lose: the end of the answer, the oldest turns, the middle of the question, or all."""
    validation_share: float = Field(0.0, ge=0.0, le=0.5, json_schema_extra=FRONT)
    """Share of the rows held out for validation, from 0 to 0.5. They are never trained on."""
    test_share: float = Field(0.0, ge=0.0, le=0.5)
    """Share of the rows held out from training and validation both, for one test of the outcome, from 0 to 0.5."""
    group: str | None = Field(None, min_length=1, max_length=200)
    """Column such as user_id or meta.book: rows with the same value are all trained on or all held out."""
    seed: int = Field(42, ge=0, le=2**32 - 1)
    """Seed of the split, of the rows that are drawn, and of their order."""

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

    @model_validator(mode="after")
    def _weights_fit(self) -> DataSpec:
        faults = [*self._wrong_weights(), *self._no_row_left()]
        if faults:
            raise ValueError("\n".join(str(fault) for fault in faults))
        return self

    def _no_row_left(self) -> Iterable[Fault]:
        if self.validation_share + self.test_share >= 1:
            yield Fault("data.test_share", "and data.validation_share leave no row to train on. Lower one of them.")

    def _wrong_weights(self) -> Iterable[Fault]:
        if self.repeat and not self.weights:
            yield Fault("data.repeat", "needs weights to repeat by. Fill in data.weights, or turn this off.")
        if wrong := [f"{weight:g}" for weight in self.weights if weight <= 0]:
            yield Fault("data.weights", f"must all be above 0, but one is {wrong[0]}. Leave that dataset out instead.")
        if self.weights and len(self.weights) != len(self.datasets):
            yield Fault(
                "data.weights",
                f"has {len(self.weights)} for {len(self.datasets)} datasets. Give one to each, or none at all.",
            )


class TemplateSpec(Section):
    """How a conversation is written as text, and which part of it is learned."""

    name: str = Field("auto", min_length=1, max_length=64, json_schema_extra=FRONT)
    """auto is the model's own chat template; the others come with the studio, or are your own."""
    system: str | None = Field(None, max_length=100_000)
    """System text for rows that have none. Empty leaves it to the template."""
    supervise: Literal["assistant", "last", "all"] = "assistant"
    """Which tokens carry loss: every assistant turn, only the last one, or the whole text."""
    learn_thoughts: bool = True
    """Whether what the assistant thinks between <think> and </think> carries loss too."""


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
    start: StartSpec = StartSpec()
    """What the run starts from, besides the base."""
    training: TrainingSpec = TrainingSpec()
    """The optimisation itself."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """What is measured while the run trains."""
    output: OutputSpec = OutputSpec()
    """What the run is called."""
    trainer: TrainerArguments = Field(default_factory=dict, max_length=200)
    """Further arguments of the trainer, by their own names in trl and transformers, such as adam_beta2: 0.95."""

    @field_validator("method", "stage", mode="before")
    @classmethod
    def _usual_kind(cls, values: Any, info: ValidationInfo) -> Any:
        """A section that names no kind is the usual one."""
        if isinstance(values, Mapping) and "kind" not in values:
            return {"kind": "lora" if info.field_name == "method" else "sft", **values}
        return values

    @model_validator(mode="after")
    def _fits_together(self) -> TrainSpec:
        faults = list(contradictions(self))
        if faults:
            raise ValueError("\n".join(str(fault) for fault in faults))
        return self


class EvaluateSpec(Section):
    """One evaluation: loss and answers, or the labels that a classifier gives, before training and after it."""

    run: str = Field(min_length=1, max_length=64, json_schema_extra=FRONT)
    """The training run whose adapter is measured."""
    checkpoint: int | None = Field(None, ge=1, json_schema_extra=FRONT)
    """Step of the checkpoint. Empty means the finished adapter, else the newest checkpoint."""
    dataset: str | None = Field(None, min_length=1, max_length=64, json_schema_extra=FRONT)
    """Registered dataset to measure on. Empty: the run's test rows, else those it held out, else its own."""
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


class AuditSpec(Section):
    """One audit of a dataset: what is wrong with its rows, before a step is trained on them."""

    dataset: str = Field(min_length=1, max_length=64, json_schema_extra=FRONT)
    """The registered dataset to look through."""
    model: str | None = Field(None, min_length=1, max_length=400, json_schema_extra=FRONT)
    """Count tokens as this model does; it must be on this machine. Empty: no tokens are counted."""
    template: TemplateSpec = TemplateSpec()
    """How a conversation is written as text, and which part of it is learned."""
    max_length: int = Field(512, ge=8, le=1_048_576, json_schema_extra=FRONT)
    """Cutoff: tokens of one row that are kept, as in a run's data.max_length."""
    truncation: Literal["cut_answer", "drop_turns", "cut_source", "drop_row"] = "cut_answer"
    """What rows beyond the cutoff lose, as in a run's data.truncation."""
    effective_batch_size: int = Field(8, ge=1, le=16_777_216)
    """Rows per optimiser step (batch_size x accumulation), from which the steps of an epoch are counted."""
    validation_share: float = Field(0.0, ge=0.0, le=0.5)
    """Share of the rows that a run would hold out, to find near duplicates that land on both sides."""
    seed: int = Field(42, ge=0, le=2**32 - 1)
    """Seed of that split, as in a run's data.seed."""
    group: str | None = Field(None, min_length=1, max_length=200)
    """Column whose equal values that split keeps on one side, as in a run's data.group."""
    against: str | None = Field(None, min_length=1, max_length=64, json_schema_extra=FRONT)
    """Another dataset, such as the evaluation set, whose rows should not stand in this one."""
    near_duplicates: bool = Field(True, json_schema_extra=FRONT)
    """Also look for rows that nearly repeat another one."""
    similarity: float = Field(0.8, ge=0.5, le=1.0)
    """Share of common pieces (three words, or five characters where words are not spaced) from which rows are near."""
    near_rows: int = Field(200_000, ge=1, le=2_000_000)
    """Near duplicates are looked for among at most this many different rows, the first ones."""

    @model_validator(mode="after")
    def _two_sets(self) -> AuditSpec:
        if self.against == self.dataset:
            raise ValueError("against: is the dataset itself. Name another one, or empty this.")
        return self


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


Spec = TrainSpec | EvaluateSpec | ExportSpec | AuditSpec
KINDS: dict[str, type[Section]] = {
    "train": TrainSpec,
    "evaluate": EvaluateSpec,
    "export": ExportSpec,
    "audit": AuditSpec,
}
