"""How fast a run's rows are tokenised: `python -m tests.benchmarks.tokenize_rows [--rows 100000]`.

Ours: from a registered dataset to Arrow files with labels (read, split, written by the template, tokenised, masked,
counted), with an empty cache, and once more as the second start of the same run does. Beside it the bare tokenizer:
datasets.map over texts that are already written, with a process for each core, and with the tokenizer's own threads;
the faster of the two is what we are measured by. All alternate, each in a process of its own; imports and the start of
Python are counted on neither side. Not a test: it asserts nothing.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from studio.home import CHECKOUT
from tests.benchmarks.import_rows import write_rows

SHARED = CHECKOUT.parent / "shared"
QWEN = SHARED / "templates" / "tokenizers" / "qwen2_5"
CUTOFF = 1024

USED = """
import os
def used():
    return sum(os.times()[:4])
"""

OURS = """
import sys, time
from pathlib import Path
from studio.data import registry
from studio.engine.rows.conversations import prepare
from studio.specs import TrainSpec, parse
from studio.templates import TextTokenizer, load
registry.add(sys.argv[1], "bench")
tokenizer, template = TextTokenizer.from_folder(Path(sys.argv[2])), load("qwen")
data = {"datasets": ["bench"], "max_length": int(sys.argv[3])}
spec = parse(TrainSpec, {"data": data, "template": {"name": "qwen"}})
for attempt in ("first", "second"):
    started, before = time.perf_counter(), used()
    rows = prepare(spec, tokenizer, template, lambda event: None, place=Path(sys.argv[-1]) / attempt)
    print(time.perf_counter() - started, used() - before)
"""

WRITE = """
import sys
from pathlib import Path
from datasets import Dataset
from studio.data import readers, registry
from studio.templates import TextTokenizer, load, render
dataset = registry.add(sys.argv[1], "bench")
specials = TextTokenizer.from_folder(Path(sys.argv[2])).specials
texts = [render(load("qwen"), each.messages, specials=specials) for _, each in registry.outcomes(dataset)]
Dataset.from_dict({"text": texts}).save_to_disk(sys.argv[3])
"""

THEIRS = """
import sys, time
from datasets import disable_caching, disable_progress_bars, load_from_disk
from transformers import AutoTokenizer
disable_caching(); disable_progress_bars()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
processes = int(sys.argv[3]) or None
rows = load_from_disk(sys.argv[1])
started, before = time.perf_counter(), used()
made = rows.map(lambda batch: {"input_ids": tokenizer(batch["text"])["input_ids"]}, batched=True, num_proc=processes)
print(time.perf_counter() - started, used() - before)
"""


def write_real_rows(path: Path, count: int) -> None:
    """Alpaca rows of real instructions and answers, English and Chinese, repeated with a number each until there are
    enough; generated ones where the shared sets are not there."""
    if not SHARED.is_dir():
        write_rows(path, count)
        return
    found = []
    for name in ("instruct/rasbt_instruction.json", "instruct/gaokao_alpaca_zh.json"):
        for row in json.loads((SHARED / "data" / name).read_bytes()):
            found.append((row["instruction"], row.get("input") or "", row["output"]))
    for line in (SHARED / "data" / "math" / "gsm8k_train.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        found.append((row["question"], "", row["answer"]))
    random.Random(7).shuffle(found)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            asked, given, answer = found[number % len(found)]
            row = {"instruction": f"{number}: {asked}", "input": given, "output": answer}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def said(code: str, *arguments: str, threads: bool = True) -> list[list[float]]:
    """The numbers that a process prints, line by line."""
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"STUDIO_HOME": home, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": f"{home}/cache"}
        environment |= {} if threads else {"TOKENIZERS_PARALLELISM": "false"}
        lines = subprocess.run(
            [sys.executable, "-c", code, *arguments, home],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.splitlines()
        return [[float(each) for each in line.split()] for line in lines if line]


def main() -> None:
    """Alternate all of them, and print medians, spread and ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokenizer", type=Path, default=QWEN, help="a folder with tokenizer.json")
    asked = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    taken: dict[str, list[list[float]]] = {"ours": [], "second start": [], "map, processes": [], "map, threads": []}
    with tempfile.TemporaryDirectory() as folder:
        path, texts = Path(folder) / "rows.jsonl", str(Path(folder) / "texts")
        write_real_rows(path, asked.rows)
        print(f"{asked.rows:,} rows, {path.stat().st_size / 1e6:.0f} MB, {cores} cores", flush=True)
        said(WRITE, str(path), str(asked.tokenizer), texts)
        for _ in range(asked.repeats):
            first, second = said(USED + OURS, str(path), str(asked.tokenizer), str(CUTOFF))
            taken["ours"].append(first)
            taken["second start"].append(second)
            taken["map, processes"] += said(USED + THEIRS, texts, str(asked.tokenizer), str(cores), threads=False)
            taken["map, threads"] += said(USED + THEIRS, texts, str(asked.tokenizer), "0")
            last = ((name, *runs[-1]) for name, runs in taken.items())
            print(
                "  " + ", ".join(f"{name} {seconds:.1f} s (CPU {used:.1f})" for name, seconds, used in last), flush=True
            )
    medians = {name: [statistics.median(each) for each in zip(*runs, strict=True)] for name, runs in taken.items()}
    for name, runs in taken.items():
        seconds, used = medians[name]
        spread = f"{min(runs)[0]:.2f} to {max(runs)[0]:.2f} s"
        rate = asked.rows / seconds
        print(f"{name:<15} median {seconds:6.2f} s ({spread}), {rate:>9,.0f} rows/s, CPU {used:.1f} s")
    bare = min(("map, processes", "map, threads"), key=medians.__getitem__)
    ratios = sorted(theirs[0] / ours[0] for theirs, ours in zip(taken[bare], taken["ours"], strict=True))
    (ours, our_cpu), (theirs, their_cpu) = medians["ours"], medians[bare]
    print(f"rate of ours / {bare}: {theirs / ours:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f} by run)")
    print(f"CPU of {bare} / ours: {their_cpu / our_cpu:.2f}, which other work on the machine sways less")


if __name__ == "__main__":
    main()
