"""The tuning methods, by the field's own taxonomy: which parameters train, and how the update is written.

A name means the same in every method that has it. Not here: what a method cannot do (abilities), and the work itself
(studio.engine.methods).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from studio.specs.section import FRONT, Section

Names = tuple[Annotated[str, Field(min_length=1, max_length=300)], ...]
ALL_LINEAR, ATTENTION = "all-linear", "attention"
"""Words that stand for layers in target_modules: every linear layer but the output head, and those of attention."""


Family = Literal["reparameterised", "additive", "soft_prompt", "selective", "mixture"]


class _Method(Section):
    family: ClassVar[Family]
    kind: str
    """Which parameters train, and how. lora suits most jobs; on a quantised base it is QLoRA."""

    @property
    def variants(self) -> tuple[str, ...]:
        """The rows of the support table (abilities) that hold for this method as it is set."""
        return (self.kind,)


class _Targeted(_Method):
    """Methods that put something beside chosen layers."""

    family: ClassVar[Family] = "reparameterised"
    target_modules: Names = Field((ALL_LINEAR,), min_length=1, max_length=1000)
    """Layers to adapt: all-linear (all but the head), attention, names like q_proj, re:PATTERN; for ia3 also auto."""
    exclude_modules: Names = Field((), max_length=1000)
    """Of those layers, names that are left alone."""
    layers: tuple[Annotated[int, Field(ge=0, le=10_000)], ...] = Field((), max_length=10_000)
    """Numbers of the decoder layers to adapt, from 0. Empty: all."""
    modules_to_save: Names = Field((), max_length=100)
    """Modules that train whole beside the adapter and are saved with it, such as embed_tokens or lm_head."""


class _Ranked(_Method):
    rank: int = Field(16, ge=1, le=4096, json_schema_extra=FRONT)
    """Rank of the update. Higher can learn more and costs more memory; 8 to 64 is usual."""


class _Scaled(_Ranked):
    alpha: float = Field(32, gt=0, le=65_536, json_schema_extra=FRONT)
    """Scaling numerator: the update is multiplied by alpha / rank. Twice the rank is usual."""


class _Dropping(_Method):
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Dropout on the adapter's input, from 0 to below 1."""


class LoraMethod(_Dropping, _Targeted, _Scaled):
    """Low-rank adaptation: two small matrices beside each chosen linear layer (arXiv:2106.09685)."""

    kind: Literal["lora"] = "lora"
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead (rank-stabilised LoRA, arXiv:2312.03732)."""
    dora: bool = False
    """Learn magnitude and direction apart (DoRA, arXiv:2402.09353). Slower, often better at low rank."""
    init: Literal["default", "gaussian", "orthogonal", "pissa", "olora", "loftq", "eva", "corda"] = "default"
    """How the matrices start: default (no change at first), by the base's weights, or (eva, corda) by the rows."""
    init_iterations: int = Field(1, ge=1, le=64)
    """Above 1, pissa decomposes the weights by that many rounds of a fast approximation. 4 to 16 is usual."""
    init_rows: int = Field(64, ge=1, le=100_000)
    """Training rows that eva and corda look at before the first step."""
    loraplus_ratio: float | None = Field(None, ge=1, le=1000)
    """LoRA+ (arXiv:2402.12354): matrix B learns this many times faster than A. 16 is usual; empty is off."""
    rank_pattern: dict[str, Annotated[int, Field(ge=1, le=4096)]] = Field(default_factory=dict, max_length=1000)
    """Other ranks for some layers: a name or pattern and its rank."""
    alpha_pattern: dict[str, Annotated[float, Field(gt=0, le=65_536)]] = Field(default_factory=dict, max_length=1000)
    """Other alphas for some layers: a name or pattern and its alpha."""
    train_tokens: Names = Field((), max_length=10_000)
    """Tokens whose embeddings train, such as a new word of a template. Each must be one token."""
    split_fused: bool = False
    """Adapt query, key and value apart where the model keeps them in one layer (GPT-2)."""

    @property
    def variants(self) -> tuple[str, ...]:
        marks = [
            f"lora, {self.init}" if self.init not in ("default", "gaussian", "orthogonal") else "lora",
            "lora, dora" if self.dora else None,
            "lora, train_tokens" if self.train_tokens else None,
            "lora, split_fused" if self.split_fused else None,
            "lora, lm_head" if "lm_head" in self.target_modules else None,
        ]
        return tuple(mark for mark in marks if mark)


class AdaLoraMethod(_Dropping, _Targeted, _Scaled):
    """LoRA whose rank is shared out among the layers while it trains (arXiv:2303.10512)."""

    kind: Literal["adalora"] = "adalora"
    rank: int = Field(8, ge=1, le=4096, json_schema_extra=FRONT)
    init_rank: int = Field(12, ge=1, le=4096, json_schema_extra=FRONT)
    """Rank of every layer at the start, from which the budget is cut to the average rank."""
    warmup_share: float = Field(0.1, ge=0, lt=1)
    """Share of the steps before ranks are cut."""
    final_share: float = Field(0.3, ge=0, lt=1)
    """Share of the steps at the end that train with the ranks as they are then."""
    every_steps: int = Field(1, ge=1, le=100_000)
    """Optimiser steps between two cuts."""
    orthogonality: float = Field(0.5, ge=0, le=100)
    """Weight of the loss that keeps the factors orthogonal."""


class LohaMethod(_Targeted, _Scaled):
    """Low-rank Hadamard product: two low-rank updates multiplied element by element (arXiv:2108.06098)."""

    kind: Literal["loha"] = "loha"
    rank_dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of the ranks left out at random in each step."""
    module_dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Chance that a layer goes without its adapter in a step."""


class LokrMethod(_Targeted, _Scaled):
    """Low-rank Kronecker product (arXiv:2309.14859)."""

    kind: Literal["lokr"] = "lokr"
    decompose_both: bool = False
    """Write both factors of the product in low rank."""
    decompose_factor: int = Field(-1, ge=-1, le=4096)
    """Size of the left factor; -1 makes both about as large."""
    rank_dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of the ranks left out at random in each step."""
    module_dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Chance that a layer goes without its adapter in a step."""


class OftMethod(_Targeted):
    """Orthogonal fine-tuning: each layer's input is turned, in blocks (arXiv:2306.07280)."""

    kind: Literal["oft"] = "oft"
    block_size: int = Field(32, ge=2, le=4096, json_schema_extra=FRONT)
    """Side of the orthogonal blocks. It must divide the layers' input size; larger learns more."""
    module_dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Chance that a layer goes without its adapter in a step."""
    constrained: bool = False
    """Keep the turn small (constrained OFT)."""
    shared_blocks: bool = False
    """One block for the whole layer."""


class BoftMethod(_Dropping, _Targeted):
    """Orthogonal fine-tuning by butterfly factors (arXiv:2311.06243)."""

    kind: Literal["boft"] = "boft"
    block_size: int = Field(4, ge=2, le=4096, json_schema_extra=FRONT)
    """Side of the orthogonal blocks. It must divide the layers' input size; larger learns more."""
    butterfly_factors: int = Field(1, ge=1, le=16)
    """Butterfly factors in the product. Above 1, block_size must be even."""


class VeraMethod(_Dropping, _Targeted, _Ranked):
    """Vectors beside random matrices that all layers share (arXiv:2310.11454)."""

    kind: Literal["vera"] = "vera"
    rank: int = Field(256, ge=1, le=16_384, json_schema_extra=FRONT)
    projection_seed: int = Field(0, ge=0, le=2**31 - 1)
    """Seed of the frozen random matrices."""
    save_projection: bool = True
    """Save the random matrices too: a larger file, but the same answers on every machine."""


class RandloraMethod(_Dropping, _Targeted, _Scaled):
    """Full-rank updates as sums of random low-rank matrices (arXiv:2502.00987)."""

    kind: Literal["randlora"] = "randlora"
    rank: int = Field(32, ge=1, le=4096, json_schema_extra=FRONT)
    alpha: float = Field(640, gt=0, le=65_536, json_schema_extra=FRONT)
    projection_seed: int = Field(0, ge=0, le=2**31 - 1)
    """Seed of the frozen random matrices."""
    save_projection: bool = True
    """Save the random matrices too: a larger file, but the same answers on every machine."""


class VbloraMethod(_Dropping, _Targeted, _Ranked):
    """LoRA whose matrices are mixed from one shared bank of vectors (arXiv:2405.15179)."""

    kind: Literal["vblora"] = "vblora"
    rank: int = Field(4, ge=1, le=4096, json_schema_extra=FRONT)
    num_vectors: int = Field(256, ge=2, le=65_536)
    """Vectors in the bank."""
    vector_length: int | None = Field(None, ge=1, le=65_536)
    """Length of a vector; it must divide every layer's sizes. Empty: the largest up to 256 that does."""
    top_k: int = Field(2, ge=1, le=64)
    """Vectors that are mixed into each piece."""


class FourierftMethod(_Targeted):
    """A few frequencies of the update's spectrum (arXiv:2405.03003)."""

    kind: Literal["fourierft"] = "fourierft"
    frequencies: int = Field(1000, ge=1, le=1_000_000, json_schema_extra=FRONT)
    """Frequencies that are learned in each layer."""
    scaling: float = Field(150, gt=0, le=1e6)
    """Factor on the update. 100 to 300 is usual."""


class HraMethod(_Targeted, _Ranked):
    """Householder reflections (arXiv:2405.17484)."""

    kind: Literal["hra"] = "hra"
    rank: int = Field(8, ge=1, le=4096, json_schema_extra=FRONT)
    orthogonal: bool = False
    """Keep the mirrors orthogonal to each other (Gram-Schmidt)."""


class MissMethod(_Dropping, _Targeted, _Ranked):
    """Matrix shard sharing (arXiv:2409.15371)."""

    kind: Literal["miss"] = "miss"
    rank: int = Field(64, ge=1, le=4096, json_schema_extra=FRONT)
    shape: Literal["balance", "bat", "mini"] = "balance"
    """balance suits most jobs; bat lets the update depend on the weights; mini has the fewest parameters."""
    mini_rank: int = Field(16, ge=1, le=4096)
    """Columns that mini learns and repeats. It must divide the layers' output size."""


class Ia3Method(_Targeted):
    """(IA)³: keys, values and inner activations are scaled by learned vectors (arXiv:2205.05638)."""

    family: ClassVar[Family] = "additive"
    kind: Literal["ia3"] = "ia3"
    target_modules: Names = Field(("auto",), min_length=1, max_length=1000)


class AdaptionPromptMethod(_Method):
    """LLaMA-Adapter: learned prompts in the upper layers, let in by a gate that starts at zero (arXiv:2303.16199)."""

    family: ClassVar[Family] = "additive"
    kind: Literal["adaption_prompt"] = "adaption_prompt"
    adapter_length: int = Field(10, ge=1, le=4096, json_schema_extra=FRONT)
    """Virtual tokens in each adapted layer."""
    adapter_layers: int = Field(30, ge=1, le=10_000, json_schema_extra=FRONT)
    """Upper layers that are adapted; all, where the model has fewer."""


class BottleneckMethod(_Dropping, _Method):
    """Bottleneck adapters: a small network down and up again after sublayers (Houlsby et al., arXiv:1902.00751)."""

    family: ClassVar[Family] = "additive"
    kind: Literal["bottleneck"] = "bottleneck"
    bottleneck_size: int = Field(64, ge=1, le=65_536, json_schema_extra=FRONT)
    """Width of the small network."""
    placement: Literal["houlsby", "pfeiffer"] = "houlsby"
    """houlsby: behind attention and MLP of each layer. pfeiffer: behind the MLP only."""
    activation: Literal["relu", "gelu", "silu"] = "gelu"
    """What stands between down and up."""


class _Soft(_Method):
    family: ClassVar[Family] = "soft_prompt"
    virtual_tokens: int = Field(20, ge=1, le=4096, json_schema_extra=FRONT)
    """Learned vectors that stand before each prompt. They take up as many positions."""


class PromptTuningMethod(_Soft):
    """Prompt tuning: learned vectors before the prompt (arXiv:2104.08691)."""

    kind: Literal["prompt_tuning"] = "prompt_tuning"
    init_text: str | None = Field(None, min_length=1, max_length=10_000)
    """Text whose embeddings the vectors start from, repeated or cut to their number. Empty: tokens drawn at random."""


class MultitaskPromptTuningMethod(_Soft):
    """One shared prompt with a low-rank change for each task (arXiv:2303.02861). Each dataset is a task."""

    kind: Literal["multitask_prompt_tuning"] = "multitask_prompt_tuning"
    task_rank: int = Field(1, ge=1, le=256)
    """Rank of each task's change to the shared prompt."""


class PTuningMethod(_Soft):
    """P-tuning: virtual tokens written by a small encoder (arXiv:2103.10385)."""

    kind: Literal["p_tuning"] = "p_tuning"
    encoder: Literal["mlp", "lstm"] = "mlp"
    """The small network that writes the virtual tokens while they train."""
    encoder_hidden_size: int = Field(128, ge=1, le=65_536, json_schema_extra=FRONT)
    """Width of that network."""
    encoder_layers: int = Field(2, ge=1, le=16)
    """Layers of that network, where it is an lstm."""
    encoder_dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Dropout in that network, where it is an lstm."""


class PrefixTuningMethod(_Soft):
    """Prefix tuning: learned keys and values before those of every layer (arXiv:2101.00190)."""

    kind: Literal["prefix_tuning"] = "prefix_tuning"
    projection: bool = False
    """Write the prefix by a small network while it trains, as the paper does: steadier, slower."""
    encoder_hidden_size: int = Field(128, ge=1, le=65_536, json_schema_extra=FRONT)
    """Width of that network."""


class FullMethod(_Method):
    """Full fine-tuning: every parameter of the base trains."""

    family: ClassVar[Family] = "selective"
    kind: Literal["full"] = "full"


class FreezeMethod(_Method):
    """Freeze all but the last decoder layers, whose weights train as they are."""

    family: ClassVar[Family] = "selective"
    kind: Literal["freeze"] = "freeze"
    last_layers: int = Field(2, ge=1, le=10_000, json_schema_extra=FRONT)
    """Decoder layers that train, counted from the end."""


class BitfitMethod(_Method):
    """BitFit: only bias terms train (arXiv:2106.10199)."""

    family: ClassVar[Family] = "selective"
    kind: Literal["bitfit"] = "bitfit"


class LnTuningMethod(_Method):
    """Layer-norm tuning: only the normalisation layers train (arXiv:2312.11420)."""

    family: ClassVar[Family] = "selective"
    kind: Literal["ln_tuning"] = "ln_tuning"


class TrainableTokensMethod(_Method):
    """Only the embeddings of chosen tokens train."""

    family: ClassVar[Family] = "selective"
    kind: Literal["trainable_tokens"] = "trainable_tokens"
    train_tokens: Names = Field(
        ("<|im_start|>", "<|im_end|>"), min_length=1, max_length=10_000, json_schema_extra=FRONT
    )
    """Tokens whose embeddings train, such as a new word of a template. Each must be one token."""


class AdamixMethod(_Dropping, _Targeted, _Scaled):
    """AdaMix: several adapters a layer, drawn at random in each step, averaged at the end (arXiv:2205.12410)."""

    family: ClassVar[Family] = "mixture"
    kind: Literal["adamix"] = "adamix"
    copies: int = Field(4, ge=2, le=16, json_schema_extra=FRONT)
    """Adapters a layer, of which each step takes one at random."""
    consistency: float = Field(1.0, ge=0, le=100)
    """Weight of the loss that makes two random draws answer alike. It costs a second forward pass; 0 is off."""


Method = Annotated[
    LoraMethod
    | AdaLoraMethod
    | LohaMethod
    | LokrMethod
    | OftMethod
    | BoftMethod
    | VeraMethod
    | RandloraMethod
    | VbloraMethod
    | FourierftMethod
    | HraMethod
    | MissMethod
    | Ia3Method
    | AdaptionPromptMethod
    | BottleneckMethod
    | PromptTuningMethod
    | MultitaskPromptTuningMethod
    | PTuningMethod
    | PrefixTuningMethod
    | FullMethod
    | FreezeMethod
    | BitfitMethod
    | LnTuningMethod
    | TrainableTokensMethod
    | AdamixMethod,
    Field(discriminator="kind"),
]
