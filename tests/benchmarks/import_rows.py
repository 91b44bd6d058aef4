"""How fast, and in how much memory, rows are registered: `python -m tests.benchmarks.import_rows [--rows 1000000]`.

Each run is a process of its own: ours (registry.add: read, validate, store and hash, in one process) and, beside it,
datasets.load_dataset("json") followed by a Python loop that checks the same three fields. The two alternate; medians
and spread are printed, and our peak memory for three sizes. Not a test: it asserts nothing.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TEXT = (
    "the model learns from rows that somebody wrote with care and a loss that falls says little about answers people "
    "read them one after another until the pattern is clear then ask again in other words 数据 模型 训练 问题 回答"
)

OURS = """
import sys
from studio.data import registry
dataset = registry.add(sys.argv[1], "bench")
print(dataset.rows, dataset.valid)
"""

THEIRS = """
import sys
from datasets import disable_progress_bars, load_dataset
disable_progress_bars()
rows = load_dataset("json", data_files=sys.argv[1], split="train", cache_dir=sys.argv[2])
valid = 0
for row in rows:
    prompt, query, answer = row["instruction"], row["input"], row["output"]
    valid += isinstance(prompt, str) and isinstance(query, str) and isinstance(answer, str) and bool(answer.strip())
print(len(rows), valid)
"""


def write_rows(path: Path, count: int) -> None:
    """Alpaca rows of about 500 bytes, a tenth of them in Chinese, the same for the same count."""
    chance, words = random.Random(7), TEXT.split()
    pool = [" ".join(chance.choices(words, k=chance.randint(30, 90))) for _ in range(5000)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            row = {
                "instruction": f"{number}: {pool[chance.randrange(5000)][:90]}",
                "input": pool[chance.randrange(5000)][:60] if number % 2 else "",
                "output": pool[chance.randrange(5000)],
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def measured(code: str, *arguments: str) -> tuple[float, float, str]:
    """(seconds, peak MB, what it printed) of a process that runs the code."""
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"STUDIO_HOME": home, "HF_HUB_OFFLINE": "1"}
        before = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments, home], env=environment, stdout=subprocess.PIPE, text=True
        )
        said = process.stdout.read().strip()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"the process ended with {status}")
        return time.perf_counter() - before, usage.ru_maxrss / 1024, said


def compare(path: Path, count: int, repeats: int) -> None:
    """Alternate both, and print medians and spread."""
    taken: dict[str, list[tuple[float, float]]] = {"studio": [], "datasets": []}
    for _ in range(repeats):
        for name, code in (("studio", OURS), ("datasets", THEIRS)):
            seconds, memory, said = measured(code, str(path))
            taken[name].append((seconds, memory))
            print(f"  {name:<9} {seconds:6.1f} s {memory:6.0f} MB   rows, valid: {said}", flush=True)
    for name, runs in taken.items():
        seconds = [each for each, _ in runs]
        rate = count / statistics.median(seconds)
        spread = f"{min(seconds):.1f} to {max(seconds):.1f} s"
        memory = max(each for _, each in runs)
        print(
            f"{name:<9} median {statistics.median(seconds):6.1f} s ({spread}), {rate:,.0f} rows/s, peak {memory:.0f} MB"
        )


def main() -> None:
    """The comparison at one size, then our memory at three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="*", default=[100_000, 1_000_000, 3_000_000])
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_rows(path, asked.rows)
        print(f"{asked.rows:,} alpaca rows, {path.stat().st_size / 1e9:.2f} GB; imports and start of Python included")
        compare(path, asked.rows, asked.repeats)
        for count in asked.sizes:
            write_rows(path, count)
            seconds, memory, _ = measured(OURS, str(path))
            print(f"{count:>9,} rows: {seconds:5.1f} s, {count / seconds:,.0f} rows/s, peak {memory:.0f} MB")


if __name__ == "__main__":
    main()
