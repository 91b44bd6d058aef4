"""How fast, and in how much memory, a LoRA job trains on a CPU: `python -m tests.benchmarks.train_cpu [--runs 3]`.

The job: rank 16, alpha 32, no dropout, all linear layers, learning rate 2e-4 that falls in a line without warm-up, one
epoch, 8 rows a step (4 in a forward pass, twice, where the contender does not choose itself), rows of at most 512
tokens in the same order for all. Each run is a process of its own, bound to as many cores as it has threads, and the
contenders take turns, with the rate of matrix products among them.

    studio, studio-nf4     studio.train() with its defaults for this machine, the base whole or in NF4
    trl                    SFTTrainer with its defaults: recomputed activations, fp32 weights, bf16 autocast, padding
    trl-best               bf16 weights, no recomputing, no padding: the same loss as trl
    trl-fp32               as trl-best in fp32, which some CPUs multiply faster
    trl-bfd                as trl-best, and rows packed whole into 512 tokens, two packs a step
    trl-packed             as trl-best, but rows laid end to end and cut at 512 tokens, so that they see each other
    trl-nf4                trl with the base in NF4 (double quantisation): usual QLoRA
    llamafactory           its defaults; --llamafactory-python names the Python of an environment that has it
    llamafactory-best      its activations kept, its arithmetic bf16
    llamafactory-fp32      its activations kept, its arithmetic fp32

The first two steps are left out of rates (fewer where there are fewer than three); a step lasts from the report before
to its own. CPU seconds are those of all threads; where other work sways the rates, tokens a CPU second still tell
something. Real tokens are those of the rows, without padding, supervised ones those that carry loss; LLaMA-Factory
writes the rows itself and learns the line break after an answer too. Utilisation is the arithmetic that the job takes
(tests/benchmarks/arithmetic.py has the formula) over time, over the measured rate of matrix products in the model's
shapes. The last line is one JSON object. Linux only. Not a test: it asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from studio import hardware
from studio.home import home
from studio.specs import BUNDLED_MODEL
from tests.benchmarks import training_rows
from tests.benchmarks.alternating import leave_nothing_running, take_turns
from tests.benchmarks.training_entries import Entry, among, contenders, pairs
from tests.benchmarks.training_figures import line, summed_up, table
from tests.benchmarks.training_job import Job, lengths

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""As the model's own template has it; LLaMA-Factory's ends in a full stop."""
_KEPT = {"gradient_checkpointing": False}
_PACKED = {"batch": 1, "accumulation": 2}
_WRAPPED = {"packing": True, "packing_strategy": "wrapped"}
_BF16, _FP32 = {"dtype": "bfloat16"}, {"dtype": "float32"}
_END_TO_END = {**_KEPT, "padding_free": True, "max_length": None}
_SMOLLM2 = {"template": "smollm2", "default_system": SYSTEM}
ENTRIES = {
    "studio": Entry("studio"),
    "trl": Entry("trl"),
    "trl-best": Entry("trl", {"options": {**_BF16, "config": _END_TO_END}}),
    "trl-fp32": Entry("trl", {"options": {**_FP32, "config": {**_END_TO_END, "bf16": False}}}),
    "trl-bfd": Entry("trl", {**_PACKED, "options": {**_BF16, "config": {**_KEPT, "packing": True}}}),
    "trl-packed": Entry("trl", {**_PACKED, "options": {**_BF16, "config": {**_KEPT, **_WRAPPED}}}),
    "trl-nf4": Entry("trl").quantised(),
    "studio-nf4": Entry("studio").quantised(),
    "llamafactory": Entry("llamafactory", {"options": {"config": _SMOLLM2}}),
    "llamafactory-best": Entry(
        "llamafactory", {"options": {"config": {**_SMOLLM2, "disable_gradient_checkpointing": True, "bf16": True}}}
    ),
    "llamafactory-fp32": Entry(
        "llamafactory", {"options": {"config": {**_SMOLLM2, "disable_gradient_checkpointing": True}}}
    ),
}
RUN_S = 1800
"""After which a run is ended."""
USUAL = ("studio", "trl", "trl-best", "trl-nf4", "studio-nf4")


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--contenders", type=among(ENTRIES), default=list(USUAL), help="names, with commas between them"
    )
    parser.add_argument("--threads", type=lambda text: [int(each) for each in text.split(",")], default=[1, 2])
    parser.add_argument("--runs", type=int, default=3, help="of each contender for each number of threads")
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--data", type=Path, default=training_rows.INSTRUCTIONS, help="a JSON file of alpaca rows")
    parser.add_argument("--model", type=Path, default=home().models / BUNDLED_MODEL, help="a model's folder")
    parser.add_argument("--llamafactory-python", help="the Python of an environment with llamafactory==0.9.5")
    parser.add_argument("--json", action="store_true", help="print the JSON object alone")
    asked = parser.parse_args(arguments)
    if not asked.llamafactory_python and any(name.startswith("llamafactory") for name in asked.contenders):
        parser.error("LLaMA-Factory runs in an environment of its own: give --llamafactory-python.")
    if not (asked.model / "config.json").is_file():
        parser.error(f"{asked.model} holds no model. Run the studio once, or give --model.")
    if not asked.data.is_file():
        parser.error(f"{asked.data} is not there. Give --data, a JSON file of alpaca rows.")
    return asked


def main(arguments: Sequence[str] | None = None) -> None:
    """Each number of threads in turn, then everything as one object."""
    asked = _asked(arguments)
    say = (lambda text: None) if asked.json else (lambda text: print(text, flush=True))
    with tempfile.TemporaryDirectory() as place:
        rows = training_rows.real_rows(asked.data, asked.rows)
        job = Job(str(asked.model.resolve()), **training_rows.write(rows, asked.model, Job.cutoff, Path(place)))
        tokens = sum(real for real, _ in lengths(job))
        say(f"{len(rows)} rows, {tokens:,} tokens; {_cpu()}, {hardware.detect()}")
        found = {
            threads: _measured(replace(job, threads=threads), asked, Path(place), say) for threads in asked.threads
        }
    told = asdict(job) | {"model": asked.model.name, "rows": len(rows), "tokens": tokens}
    parts = {part: {threads: each[part] for threads, each in found.items()} for part in ("ratios", "losses")}
    machine = f"{_cpu()}, {hardware.detect()}"
    print(json.dumps({"benchmark": "train_cpu", "machine": machine, "job": told, "threads": found, **parts}))


def _measured(job: Job, asked: argparse.Namespace, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """All contenders with one number of threads."""
    say(f"threads: {job.threads}")
    entries = {name: ENTRIES[name] for name in asked.contenders}
    pythons = {"llamafactory": asked.llamafactory_python} if asked.llamafactory_python else {}
    turns = contenders(entries, job, folder, pythons=pythons, timeout_s=RUN_S)
    taken = take_turns(turns, asked.runs, told=lambda name, figures: say(line(name, figures)))
    found = summed_up(taken, job, pairs(entries))
    say(table(found))
    return found


def _cpu() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((text.split(":", 1)[1].strip() for text in lines if text.startswith("model name")), "")


if __name__ == "__main__":
    leave_nothing_running()
    main()
