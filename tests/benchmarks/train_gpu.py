"""How fast, and in how much GPU memory, LoRA trains on a GPU: `python -m tests.benchmarks.train_gpu [--sizes 0.5b]`.

The job: rank 16, alpha 32, no dropout, all linear layers, rows of mixed lengths of at most 2,048 tokens in the same
order for all, 8 rows a step (4 in a forward pass, twice, where the contender does not choose itself), on a base in bf16
and, under the names that end in -nf4, in NF4. Models have the shapes of Qwen 2.5 0.5B and 1.5B and of Llama 3.1 8B and
random weights, made on the spot. Each run is a process of its own, and the contenders take turns, with the rate of
matrix products among them.

    studio       studio.train() with its defaults for this machine
    trl          SFTTrainer with its defaults, and bf16 weights: recomputed activations, padding
    trl-liger    the same with Liger's kernels
    unsloth      its own loader, checkpointing and kernels; --unsloth-python names another environment's Python

Who is not installed is told and left out. The first two steps are left out of rates. Memory is the most that torch held
(allocated), with what it keeps in reserve (the studio does not tell that), and the most that was used on the whole
device while the run lasted. Utilisation is as in train_cpu. No run starts after --minutes, and none goes on. The last
line is one JSON object. `--sizes tiny` tries the plumbing, also on a CPU; its rates mean nothing. Not a test: it
asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from studio import hardware
from studio.home import home
from studio.specs import BUNDLED_MODEL
from tests.benchmarks import training_rows
from tests.benchmarks.alternating import Contender, Figures, RunFailed, leave_nothing_running, run, take_turns
from tests.benchmarks.random_model import SIZES, put_tokenizer
from tests.benchmarks.training_entries import NF4, Entry, among, contenders, missing, pairs
from tests.benchmarks.training_figures import line, summed_up, table
from tests.benchmarks.training_job import Job, lengths

CUTOFF_TOKENS = 2048
TINY_CUTOFF_TOKENS = 128
RUN_S = 240
"""After which a run is ended."""
ENTRIES = {
    "studio": Entry("studio"),
    "trl": Entry("trl", {"options": {"dtype": "bfloat16"}}),
    "trl-liger": Entry(
        "trl", {"options": {"dtype": "bfloat16", "config": {"use_liger_kernel": True}}}, needs="liger_kernel"
    ),
    "unsloth": Entry("unsloth", needs="unsloth"),
}
_POLL_S = 0.25


@contextmanager
def device_memory() -> Iterator[Figures]:
    """The most memory, in MiB, that was used on the first GPU by all processes, as the driver's tool tells it."""
    figures: Figures = {}
    over = threading.Event()
    polling = threading.Thread(target=_poll, args=(figures, over))
    polling.start()
    try:
        yield figures
    finally:
        over.set()
        polling.join()


def _poll(figures: Figures, over: threading.Event) -> None:
    tool = shutil.which("nvidia-smi")
    if not tool:
        return
    query = [tool, "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    while not over.wait(_POLL_S):
        said = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
        if said.isdigit():
            figures["peak_device_mib"] = max(figures.get("peak_device_mib", 0.0), float(said))


def chosen(names: Sequence[str], bases: Sequence[str]) -> dict[str, Entry]:
    """Each contender on each base, by name."""
    found = {}
    for name in names:
        if "none" in bases:
            found[name] = ENTRIES[name]
        if "nf4" in bases:
            found[f"{name}{NF4}"] = ENTRIES[name].quantised()
    return found


def job_of(size: str, steps: int, tokenizer: Path | None, folder: Path, *, until: float) -> Job:
    """Make the model and the rows. Raises: RunFailed."""
    model = folder / "model"
    command = (sys.executable, "-m", "tests.benchmarks.random_model", size, str(model))
    run(Contender("model", command), timeout_s=until - time.monotonic())
    put_tokenizer(model, tokenizer)
    cutoff = TINY_CUTOFF_TOKENS if size == "tiny" else CUTOFF_TOKENS
    rows = training_rows.mixed_rows(steps * Job.batch * Job.accumulation, cutoff)
    return Job(str(model), **training_rows.write(rows, model, cutoff, folder), cutoff=cutoff)


def measured(
    size: str, asked: argparse.Namespace, entries: Mapping[str, Entry], say: Callable[[str], None], until: float
) -> dict[str, Any]:
    """One size. Raises: RunFailed: there was no time to make the model."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        job = job_of(size, asked.steps, asked.tokenizer, folder, until=until)
        rows = lengths(job)
        say(f"{size}: {len(rows)} rows, {sum(real for real, _ in rows):,} tokens")
        turns = contenders(entries, job, folder, pythons=_pythons(asked), timeout_s=RUN_S)
        taken = take_turns(
            turns,
            asked.runs,
            told=lambda name, figures: say(line(name, figures)),
            until=until,
            around=device_memory,
        )
        found = summed_up(taken, job, pairs(entries))
        say(table(found))
        told = asdict(job) | {"model": size, "rows": len(rows), "tokens": sum(real for real, _ in rows)}
        return found | {"job": told}


def _pythons(asked: argparse.Namespace) -> dict[str, str]:
    return {"unsloth": asked.unsloth_python} if asked.unsloth_python else {}


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=among(SIZES), default=["0.5b", "1.5b", "8b"], help="with commas")
    parser.add_argument("--contenders", type=among(ENTRIES), default=list(ENTRIES), help="with commas")
    parser.add_argument("--bases", type=among(("none", "nf4")), default=["none", "nf4"], help="with commas")
    parser.add_argument("--runs", type=int, default=1, help="of each contender")
    parser.add_argument("--steps", type=int, default=6, help="of each run")
    parser.add_argument("--minutes", type=float, default=8, help="for everything")
    parser.add_argument("--tokenizer", type=Path, help="a folder with tokenizer.json; the bundled model's by default")
    parser.add_argument("--unsloth-python", help="the Python of an environment with Unsloth")
    parser.add_argument("--json", action="store_true", help="print the JSON object alone")
    asked = parser.parse_args(arguments)
    if not hardware.detect().gpu and set(asked.sizes) != {"tiny"}:
        parser.error("There is no GPU here. Only --sizes tiny, which tries the plumbing, runs on a CPU.")
    bundled = home().models / BUNDLED_MODEL
    if asked.tokenizer is None and (bundled / "tokenizer.json").is_file():
        asked.tokenizer = bundled
    return asked


def main(arguments: Sequence[str] | None = None) -> None:
    """Each size in turn, then everything as one object."""
    asked = _asked(arguments)
    until = time.monotonic() + 60 * asked.minutes
    say = (lambda text: None) if asked.json else (lambda text: print(text, flush=True))
    entries = chosen(asked.contenders, asked.bases)
    absent = missing(entries, _pythons(asked))
    for name, why in absent.items():
        say(f"{name} is left out: {why}.")
    present = {name: entry for name, entry in entries.items() if name not in absent}
    found, failed = {}, {}
    for size in asked.sizes:
        try:
            found[size] = measured(size, asked, present, say, until)
        except RunFailed as error:
            failed[size] = str(error)
            say(f"{size} is left out: {error}")
    told = {"machine": str(hardware.detect()), "sizes": found, "not_installed": absent, "failed": failed}
    ratios = {size: each["ratios"] for size, each in found.items()}
    print(json.dumps({"benchmark": "train_gpu", **told, "ratios": ratios}))


if __name__ == "__main__":
    leave_nothing_running()
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # several would be trained on at once
    main()
