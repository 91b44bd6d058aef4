"""Methods that write the update of a weight in fewer numbers: products, rotations, shared banks, spectra.

Not here: LoRA and its variants (lora), which have a file of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from peft import (
    BOFTConfig,
    FourierFTConfig,
    HRAConfig,
    LoHaConfig,
    LoKrConfig,
    MissConfig,
    OFTConfig,
    RandLoraConfig,
    VBLoRAConfig,
    VeraConfig,
)
from peft.tuners.boft.layer import get_fbd_cuda

from studio.engine.methods import saved_once  # noqa: F401 - RandLoRA's matrices
from studio.engine.methods.placing import LINEAR, LINEAR_AND_CONV1D, Conv1D, chosen, placed, sizes, turned_round
from studio.engine.methods.tuning import Context, Tuning, by_config
from studio.errors import Fault, SpecError
from studio.specs import (
    BoftMethod,
    FourierftMethod,
    HraMethod,
    LohaMethod,
    LokrMethod,
    MissMethod,
    OftMethod,
    RandloraMethod,
    VbloraMethod,
    VeraMethod,
)

_LONGEST_VECTOR = 256
"""VB-LoRA's usual length of a vector."""
Sizes = list[tuple[int, int]]


def loha(method: LohaMethod) -> Tuning:
    """Source: FedPara, arXiv:2108.06098, section 2.2."""
    return _placed(
        LoHaConfig,
        method,
        LINEAR,
        r=method.rank,
        alpha=method.alpha,
        rank_dropout=method.rank_dropout,
        module_dropout=method.module_dropout,
    )


def lokr(method: LokrMethod) -> Tuning:
    """Source: LyCORIS, arXiv:2309.14859, section 4.2."""
    return _placed(
        LoKrConfig,
        method,
        LINEAR,
        r=method.rank,
        alpha=method.alpha,
        decompose_both=method.decompose_both,
        decompose_factor=method.decompose_factor,
        rank_dropout=method.rank_dropout,
        module_dropout=method.module_dropout,
    )


def oft(method: OftMethod) -> Tuning:
    """Source: arXiv:2306.07280, section 3; the blocks act on the input, as in OFTv2, arXiv:2506.19847."""

    def faults(found: Sizes) -> Iterator[Fault]:
        yield from _blocks(method.block_size, [into for into, _ in found])

    return _placed(
        OFTConfig,
        method,
        LINEAR,
        faults,
        r=0,
        oft_block_size=method.block_size,
        module_dropout=method.module_dropout,
        coft=method.constrained,
        block_share=method.shared_blocks,
    )


def boft(method: BoftMethod) -> Tuning:
    """Source: arXiv:2311.06243, section 4."""

    def faults(found: Sizes) -> Iterator[Fault]:
        factors = method.butterfly_factors
        yield from _blocks(method.block_size, [into for into, _ in found], times=2 ** (factors - 1))
        if factors > 1 and method.block_size % 2:
            yield Fault("method.block_size", f"must be even with {factors} butterfly factors, but is odd.")
        if factors > 1 and not get_fbd_cuda():
            without = "needs PEFT's CUDA extension, which this machine cannot build; PEFT would silently take 1"
            yield Fault("method.butterfly_factors", f"{without}. Set it to 1.")

    return _placed(
        BOFTConfig,
        method,
        LINEAR,
        faults,
        boft_block_size=method.block_size,
        boft_n_butterfly_factor=method.butterfly_factors,
        boft_dropout=method.dropout,
    )


def vera(method: VeraMethod) -> Tuning:
    """Source: arXiv:2310.11454, section 3."""
    return _placed(
        VeraConfig,
        method,
        LINEAR_AND_CONV1D,
        r=method.rank,
        vera_dropout=method.dropout,
        projection_prng_key=method.projection_seed,
        save_projection=method.save_projection,
    )


def randlora(method: RandloraMethod) -> Tuning:
    """Source: arXiv:2502.00987, section 4."""
    return _placed(
        RandLoraConfig,
        method,
        LINEAR_AND_CONV1D,
        r=method.rank,
        randlora_alpha=method.alpha,
        randlora_dropout=method.dropout,
        projection_prng_key=method.projection_seed,
        save_projection=method.save_projection,
    )


def vblora(method: VbloraMethod) -> Tuning:
    """Source: arXiv:2405.15179, section 3."""

    def config(model: Any, context: Context) -> VBLoRAConfig:
        layers = chosen(method, model)
        common = math.gcd(*(side for pair in sizes(layers) for side in pair))
        length = method.vector_length or max(each for each in divisors(common) if each <= _LONGEST_VECTOR)
        faults = list(_vectors(method, length, common))
        if faults:
            raise SpecError(faults)
        return VBLoRAConfig(
            task_type=context.task,
            **placed(method, model),
            fan_in_fan_out=turned_round(layers),
            r=method.rank,
            num_vectors=method.num_vectors,
            vector_length=length,
            topk=method.top_k,
            vblora_dropout=method.dropout,
        )

    return by_config(config)


def fourierft(method: FourierftMethod) -> Tuning:
    """Source: arXiv:2405.03003, section 3."""

    def faults(found: Sizes) -> Iterator[Fault]:
        smallest = min(into * out for into, out in found)
        if method.frequencies > smallest:
            most = f"is {method.frequencies}, but the smallest layer has only {smallest} of them"
            yield Fault("method.frequencies", f"{most}. Lower it to that at most.")

    return _placed(
        FourierFTConfig,
        method,
        LINEAR_AND_CONV1D,
        faults,
        n_frequency=method.frequencies,
        scaling=method.scaling,
    )


def hra(method: HraMethod) -> Tuning:
    """Source: arXiv:2405.17484, section 3."""

    def faults(found: Sizes) -> Iterator[Fault]:
        yield from _rank_within(method.rank, found)

    return _placed(HRAConfig, method, LINEAR, faults, r=method.rank, apply_GS=method.orthogonal)


def miss(method: MissMethod) -> Tuning:
    """Source: arXiv:2409.15371, section 3; balance, bat and mini as PEFT has them."""

    def faults(found: Sizes) -> Iterator[Fault]:
        yield from _rank_within(method.rank, found)
        if method.shape == "bat":
            yield from _divides("method.rank", method.rank, [side for pair in found for side in pair], "sizes")
        if method.shape == "mini":
            yield from _divides("method.mini_rank", method.mini_rank, [out for _, out in found], "output sizes")

    return _placed(
        MissConfig,
        method,
        LINEAR,
        faults,
        r=method.rank,
        mini_r=method.mini_rank,
        miss_dropout=method.dropout,
        init_weights=True if method.shape == "balance" else method.shape,
    )


def divisors(number: int) -> list[int]:
    """All of them, ascending."""
    return [each for each in range(1, number + 1) if number % each == 0]


def _placed(
    kind: Callable[..., Any],
    method: Any,
    layers: tuple[type, ...],
    faults: Callable[[Sizes], Iterable[Fault]] = lambda found: (),
    **values: Any,
) -> Tuning:
    """One PEFT config beside chosen layers. faults: what is wrong with the method for layers of these sizes."""

    def config(model: Any, context: Context) -> Any:
        found = chosen(method, model, layers)
        if wrong := list(faults(sizes(found))):
            raise SpecError(wrong)
        turned = {"fan_in_fan_out": turned_round(found)} if Conv1D in layers else {}
        return kind(task_type=context.task, **placed(method, model, layers), **turned, **values)

    return by_config(config)


def _blocks(block: int, into: list[int], times: int = 1) -> Iterator[Fault]:
    whole = math.gcd(*into)
    yield from _divides("method.block_size", block, [whole // times if whole % times == 0 else 1], "input sizes")


def _divides(field: str, given: int, of: list[int], what: str) -> Iterator[Fault]:
    """Give the nearest numbers that would do, where one does not divide all the sizes."""
    common = math.gcd(*of)
    if common % given:
        near = sorted(sorted(divisors(common)[1:] or [1], key=lambda each: abs(each - given))[:3])
        told = ", ".join(map(str, near))
        shown = ", ".join(map(str, sorted(set(of))[:6]))
        yield Fault(field, f"is {given}, which does not divide the layers' {what} ({shown}). Choose one of {told}.")


def _rank_within(rank: int, found: Sizes) -> Iterator[Fault]:
    smallest = min(into for into, _ in found)
    if rank > smallest:
        yield Fault(
            "method.rank", f"is {rank}, but the smallest layer has {smallest} inputs. Lower it to that at most."
        )


def _vectors(method: VbloraMethod, length: int, common: int) -> Iterator[Fault]:
    yield from _divides("method.vector_length", length, [common], "sizes")
    if method.top_k > method.num_vectors:
        yield Fault("method.top_k", f"is {method.top_k}, but the bank has {method.num_vectors} vectors. Lower it.")
