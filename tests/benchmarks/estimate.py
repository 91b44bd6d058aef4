"""How near the estimate of a run's memory is to what it takes: `python -m tests.benchmarks.estimate [--json]`.

Twelve configurations on SmolLM2-135M and the CPU, each two steps in a worker process of its own, on rows that reach
the cutoff; its peak is the highest VmHWM of that process, loading included. Beside it what was estimated before: all
parts, and the pages of the model's file that the system may take back. The last line is one JSON object with the
ratios, measured / estimated. Pages of files that are taken back while it runs make a measurement smaller, so let
nothing else run. Not a test: it asserts nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from studio import specs
from studio.engine.fit import estimate
from studio.engine.models.arithmetic import measure_once
from studio.engine.models.resolve import peek
from studio.specs import BUNDLED_MODEL, TrainSpec
from tests.benchmarks.clock import peak_rss_mib

MIB = 1024**2
WITHIN, UNDER = 0.15, 0.10
POLL_S = 0.02
"""Shares by which an estimate may be off, and by which it may be too low."""
ATTENTION = {"kind": "lora", "target_modules": ["attention"]}
CONFIGURATIONS: dict[str, tuple[int, int, str, str, dict[str, Any]]] = {
    "1 x 128": (1, 128, "off", "none", {}),
    "1 x 1024": (1, 1024, "off", "none", {}),
    "4 x 128": (4, 128, "off", "none", {}),
    "4 x 128, attention only": (4, 128, "off", "none", ATTENTION),
    "4 x 128, nf4": (4, 128, "off", "nf4", {}),
    "8 x 128, int8": (8, 128, "off", "int8", {}),
    "4 x 512": (4, 512, "off", "none", {}),
    "4 x 512, checkpointing": (4, 512, "on", "none", {}),
    "4 x 512, nf4, checkpointing": (4, 512, "on", "nf4", {}),
    "8 x 512, nf4, checkpointing": (8, 512, "on", "nf4", {}),
    "1 x 512, full": (1, 512, "off", "none", {"kind": "full"}),
    "4 x 128, dora": (4, 128, "off", "none", {"kind": "lora", "dora": True}),
}
"""By name: batch size, cutoff, gradient checkpointing, quantisation, method."""

WORKER = """
import json, sys
from studio import specs
from studio.data import registry
from studio.jobs import folder, worker
registry.add(sys.argv[1], "long")
job = folder.create("train", specs.parse(specs.TrainSpec, json.loads(sys.argv[2])), "bench")
sys.exit(worker.main(str(job.path)))
"""


def spec_of(name: str, model: str) -> TrainSpec:
    """The spec of a configuration."""
    size, length, checkpointing, quantized, method = CONFIGURATIONS[name]
    values = {
        "model": {"name": model},
        "data": {"datasets": ["long"], "max_length": length},
        "training": {
            "batch_size": size,
            "accumulation": 1,
            "max_steps": 2,
            "gradient_checkpointing": checkpointing,
        },
        "evaluation": {"max_new_tokens": 8},
        "quantization": {"kind": quantized},
        "method": {"kind": "lora", **method},
    }
    return specs.parse(TrainSpec, values)


def write_rows(path: Path) -> None:
    """Rows of more tokens than any cutoff, nearly all of them in the answer."""
    rows = [
        {"instruction": f"{number}: count", "input": "", "output": " ".join(f"word{number} and" for _ in range(1500))}
        for number in range(32)
    ]
    path.write_text(json.dumps(rows), encoding="utf-8")


def peak(spec: TrainSpec) -> int:
    """Bytes that a worker held at most while it worked a spec. Raises: RuntimeError: it failed."""
    with tempfile.TemporaryDirectory() as home:
        rows = Path(home) / "long.json"
        write_rows(rows)
        environment = os.environ | {"STUDIO_HOME": home, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        command = [sys.executable, "-c", WORKER, str(rows), spec.model_dump_json()]
        with (Path(home) / "said").open("w+", encoding="utf-8") as said:
            worker = subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT)
            highest = 0.0
            while worker.poll() is None:  # it forgets its peak after the preflight
                highest = max(highest, peak_rss_mib(worker.pid) or 0.0)
                time.sleep(POLL_S)
            said.seek(0)
            if worker.returncode:
                raise RuntimeError(said.read()[-4000:])
    return int(highest * MIB)


def measured(names: list[str], model: str, *, fast: bool | None) -> Iterator[dict[str, Any]]:
    """Each configuration with its estimate and its peak, in bytes. fast: whether it is estimated for the fast path."""
    for name in names:
        spec = spec_of(name, model)
        fit = estimate(spec, fast=fast)
        taken = peak(spec)
        yield {
            "name": name,
            "estimated": fit.parts.resident,
            "measured": taken,
            "ratio": round(taken / fit.parts.resident, 3),
            "fast": fit.setting.fast,
            "parts": asdict(fit.parts),
        }


def main() -> None:
    """Measure all configurations, or those that are named, and count how many are near."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="only the last line")
    parser.add_argument("--only", action="append", choices=list(CONFIGURATIONS), help="a configuration; repeatable")
    parser.add_argument("--model", default="", help="a folder; without it the bundled model")
    parser.add_argument("--trl", action="store_true", help="estimate for trl's path, whatever the engine takes")
    asked = parser.parse_args()
    model = asked.model or peek(BUNDLED_MODEL).where or BUNDLED_MODEL
    measure_once()  # as the runs do, which compute in what comes out
    found = []
    for each in measured(asked.only or list(CONFIGURATIONS), str(model), fast=False if asked.trl else None):
        found.append(each)
        if not asked.json:
            print(
                f"{each['name']:<30} estimated {each['estimated'] / MIB:6,.0f} MiB, "
                f"measured {each['measured'] / MIB:6,.0f} MiB, ratio {each['ratio']:.3f}",
                flush=True,
            )
    near = [each for each in found if abs(each["ratio"] - 1) <= WITHIN]
    under = [each["name"] for each in found if each["ratio"] > 1 + UNDER]
    if not asked.json:
        print(f"within {WITHIN:.0%}: {len(near)} of {len(found)}")
        print(f"more than {UNDER:.0%} under: {', '.join(under) or 'none'}")
    print(json.dumps({"within": len(near), "of": len(found), "under": under, "configurations": found}))


if __name__ == "__main__":
    main()
