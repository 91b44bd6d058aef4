"""What the runs of a training benchmark come to: rates, utilisation, ratios and differences of loss, as one object.

Not here: how contenders take turns (alternating), and what a process measures of itself (clock).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.alternating import Figures, Taken, ratios, spread
from tests.benchmarks.arithmetic import flops, shapes_of
from tests.benchmarks.training_job import Job, lengths, warm_up_steps

GEMM = "gemm"
"""The measurement of the machine, which takes its turn among the contenders."""
TOKENS = ("real", "supervised")
Pair = tuple[str, str]
SPREAD = (
    "real_tokens_per_s",
    "supervised_tokens_per_s",
    "real_tokens_per_cpu_s",
    "utilisation",
    "peak_rss_mib",
    "peak_gpu_allocated_mib",
    "peak_gpu_reserved_mib",
    "peak_device_mib",
    "first_step_s",
    "cpu_s",
    "mean_loss",
    "final_loss",
)


def rated(figures: Figures) -> Figures:
    """A run's figures with its rates. The steps of the warm-up are in none of them, but in the losses."""
    warm_up, reports = warm_up_steps(len(figures["reports"])), figures["reports"]
    seconds = reports[-1] - reports[warm_up - 1]
    rates = {f"{kind}_tokens_per_s": sum(figures[kind][warm_up:]) / seconds if seconds else None for kind in TOKENS}
    used = figures["cpu_at_report_s"][-1] - figures["cpu_at_report_s"][warm_up - 1]
    rates["real_tokens_per_cpu_s"] = sum(figures["real"][warm_up:]) / used if used else None
    losses = figures["losses"]
    return (
        figures
        | rates
        | {
            "warm_up_steps": warm_up,
            "measured_s": seconds,
            "mean_loss": statistics.fmean(losses),
            "final_loss": losses[-1],
        }
    )


def utilised(figures: Figures, flops_per_token: float, flops_per_s: float | None) -> Figures:
    """With the share of the measured rate of matrix products that the run's necessary arithmetic took up."""
    rate = figures["real_tokens_per_s"]
    return figures | {"utilisation": rate * flops_per_token / flops_per_s if rate and flops_per_s else None}


def summed_up(taken: Taken, job: Job, pairs: Sequence[Pair]) -> dict[str, Any]:
    """One object of everything. pairs: contenders that are compared."""
    sizes = lengths(job)
    work = flops(shapes_of(Path(job.model)), sizes, rank=job.rank)
    return _summed_up(taken, work, sum(real for real, _ in sizes), pairs)


def _summed_up(taken: Taken, work: Mapping[str, int], tokens: int, pairs: Sequence[Pair]) -> dict[str, Any]:
    machine = spread(each["flops_per_s"] for each in taken.runs.get(GEMM, []))
    per_token, rate = sum(work.values()) / tokens, machine and machine["median"]
    runs = {
        name: [utilised(rated(each), per_token, rate) for each in found]
        for name, found in taken.runs.items()
        if name != GEMM
    }
    medians = {name: {key: spread(each.get(key) for each in found) for key in SPREAD} for name, found in runs.items()}
    rates = {name: (found["real_tokens_per_s"] or {}).get("median") for name, found in medians.items()}
    return {
        "floor": {
            "flops": dict(work),
            "flops_per_token": per_token,
            "gemm_flops_per_s": machine,
            "tokens_per_s": rate and rate / per_token,
        },
        "contenders": {name: {"medians": medians[name], "runs": found} for name, found in runs.items()},
        "ratios": ratios({name: rate for name, rate in rates.items() if rate}, pairs),
        "losses": {f"{a}/{b}": apart(runs[a], runs[b]) for a, b in pairs if a in runs and b in runs},
        "failed": taken.failed,
    }


def apart(ours: Sequence[Figures], theirs: Sequence[Figures]) -> dict[str, float | None]:
    """How far two contenders' losses are from each other in their first runs, in nats: ours less theirs.

    Between steps only where both take as many; packed rows make fewer.
    """
    one, other = ours[0]["losses"], theirs[0]["losses"]
    steps = [a - b for a, b in zip(one, other, strict=True)] if len(one) == len(other) else None
    return {
        "mean": statistics.fmean(one) - statistics.fmean(other),
        "final": one[-1] - other[-1],
        "largest_of_a_step": max(steps, key=abs) if steps else None,
    }


def line(name: str, figures: Figures) -> str:
    """One run for the reader."""
    if "failed" in figures:
        return f"  {name:<18} left out: {figures['failed']}"
    if name == GEMM:
        return f"  {name:<18} {figures['flops_per_s'] / 1e9:8.1f} GFLOP/s in {figures['dtype']}"
    run = rated(figures)
    return (
        f"  {name:<18} {_number(run['real_tokens_per_s'], '8.1f')} tokens/s, "
        f"{_number(run['real_tokens_per_cpu_s'], '.1f')} a CPU second, "
        f"{_number(run['peak_rss_mib'], '6.0f')} MiB, first step after {run['first_step_s']:.1f} s, "
        f"CPU {run['cpu_s']:.1f} s, mean loss {run['mean_loss']:.4f}"
    )


def table(found: Mapping[str, Any]) -> str:
    """Medians, and in brackets the spread of the rate."""
    lines = []
    for name, contender in found["contenders"].items():
        medians = contender["medians"]
        shown = {key: _number(value and value["median"], form) for key, value, form in _columns(medians)}
        lines.append(
            f"{name:<18} {_range(medians['real_tokens_per_s'])}, "
            f"{shown['supervised_tokens_per_s']} supervised, {shown['real_tokens_per_cpu_s']} a CPU second, "
            f"utilisation {shown['utilisation']}, {_memory(shown)}, "
            f"CPU {shown['cpu_s']} s, mean loss {shown['mean_loss']}, final {shown['final_loss']}"
        )
    lines += [f"{pair}: {ratio:.2f}" for pair, ratio in found["ratios"].items()]
    return "\n".join(lines)


def _range(rate: Mapping[str, float] | None) -> str:
    return f"{rate['median']:8.1f} tokens/s ({rate['min']:.1f} to {rate['max']:.1f})" if rate else "no rate"


def _columns(medians: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    forms = {"utilisation": ".1%", "mean_loss": ".4f", "real_tokens_per_cpu_s": ".1f", "final_loss": ".4f"}
    return [(key, value, forms.get(key, ".0f")) for key, value in medians.items()]


def _memory(shown: Mapping[str, str]) -> str:
    gpu = shown["peak_gpu_allocated_mib"]
    if gpu == "?":
        return f"peak {shown['peak_rss_mib']} MiB"
    return f"peak {gpu} MiB of the GPU (reserved {shown['peak_gpu_reserved_mib']}, device {shown['peak_device_mib']})"


def _number(value: float | None, form: str) -> str:
    return "?" if value is None else format(value, form)
