"""A studio that is used, abused and killed for a while: `python -m tests.faults.soak [--minutes 10] [--seed 0]`.

A real `studio ui` in a home of its own; beside it sessions that look, uploads of good, bad and huge files, starts,
stops, resumes, changes of the queue, and workers killed, all drawn from one seed. In the end every run is brought to
its end, and every dataset, checkpoint and outcome is verified; runs of one spec must have equal weights, whatever
happened to them. Prints one JSON object, with the server's memory over time, and ends with 1 if something is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

from studio.errors import StudioError
from studio.home import CHECKOUT
from tests.faults.crashing import digests

SPECS, RUNS = 3, 24
"""How many different specs there are, and runs at most."""
PATIENCE_S = 900.0
"""For the runs that are left at the end."""


class Soak:
    """What the actors share. Every action is counted, and what should not be said is kept."""

    def __init__(self, home: Path, url: str, model: Path, seed: int):
        self.home, self.url, self.model, self.seed = home, url, model, seed
        self.over = threading.Event()
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.datasets: list[str] = []

    def run(self, name: str, pause_s: float, act: Callable[[random.Random], None]) -> threading.Thread:
        def loop() -> None:
            dice = random.Random(f"{self.seed} {name}")
            while not self.over.wait(dice.uniform(0.5, 1.5) * pause_s):
                try:
                    act(dice)
                    self.done[name] += 1
                except (Refused, StudioError):
                    self.done[f"{name}, refused"] += 1
                except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                    self.wrong.append(f"{name}: {type(error).__name__}: {error}"[:300])

        thread = threading.Thread(target=loop, name=name, daemon=True)
        thread.start()
        return thread

    # --- by the named API

    def call(self, name: str, *values: Any) -> Any:
        """Raises: Refused: with the studio's own words. Anything raw is a finding."""
        with httpx.Client(base_url=self.url, timeout=60) as client:
            event = client.post(f"/gradio_api/call/{name}", json={"data": list(values)}).json()["event_id"]
            kind = ""
            with client.stream("GET", f"/gradio_api/call/{name}/{event}") as answer:
                for line in answer.iter_lines():
                    kind = line[7:] if line.startswith("event: ") else kind
                    if line.startswith("data: ") and kind == "complete":
                        return json.loads(line[6:])[0]
                    if line.startswith("data: ") and kind == "error":
                        if "Traceback" in line or "Something went wrong" in line or line == "data: null":
                            raise RuntimeError(line)
                        raise Refused(line)
        raise RuntimeError(f"{name} gave no answer")

    def some(self, dice: random.Random, *states: str) -> str:
        jobs = [job["id"] for job in self.call("list_jobs") if job["state"] in states]
        if not jobs:
            raise Refused("none")
        return dice.choice(sorted(jobs))

    # --- what people do

    def look(self, dice: random.Random) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as client:
            for path in (f"/?tab={dice.choice(['data', 'train', 'chat'])}", "/config", "/theme.css"):
                client.get(path).raise_for_status()
        self.call("list_datasets")
        self.call("job", self.some(dice, "running", "finished", "stopped", "queued", "killed", "interrupted"))

    def upload(self, dice: random.Random) -> None:
        body = dice.choice([b'{"instruction": "a", "output": "b"}\n', b"\x00\xff", b"{" * 9000, b"[[[[" * 999])
        files = {"files": (dice.choice(["rows.jsonl", "../../x.jsonl", "a;b.json"]), body * dice.randint(1, 2000))}
        httpx.post(f"{self.url}/gradio_api/upload", files=files, timeout=60).raise_for_status()

    def register(self, dice: random.Random) -> None:
        from studio.data import registry

        number = len(self.datasets)
        rows = [{"instruction": f"{n} + {number}?", "output": str(n + number)} for n in range(dice.randint(1, 3000))]
        path = self.home.parent / f"rows-{number}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        registry.add(path, f"rows-{number}")
        self.datasets.append(f"rows-{number}")
        path.unlink()

    def start(self, dice: random.Random) -> None:
        if len(list((self.home / "jobs").glob("*/job.json"))) >= RUNS:
            raise Refused("enough")
        self.call("start_training", json.dumps(spec(self.model, dice.randrange(SPECS))))

    def stop(self, dice: random.Random) -> None:
        self.call("stop_job", self.some(dice, "running", "queued"))

    def resume(self, dice: random.Random) -> None:
        self.call("resume_job", self.some(dice, "stopped", "killed", "interrupted"))

    def kill(self, dice: random.Random) -> None:
        from studio.jobs import folder as folders
        from studio.jobs.journal import tail

        folder = folders.find(self.some(dice, "running", "stopping", "starting"))
        pids = [event.pid for event in tail(folder.events)[0] if event.type == "started"]
        if not (pids and folder.is_locked() and psutil.pid_exists(pids[-1])):
            raise Refused("gone")
        if "studio.jobs" not in " ".join(psutil.Process(pids[-1]).cmdline()):
            raise RuntimeError(f"{pids[-1]} is no worker")
        os.kill(pids[-1], signal.SIGKILL)

    def reorder(self, dice: random.Random) -> None:
        from studio.jobs import queue

        queue.move(self.some(dice, "queued"), dice.randint(1, 4))

    # --- in the end

    def bring_to_an_end(self, patience_s: float) -> None:
        until = time.monotonic() + patience_s
        while time.monotonic() < until:
            jobs = self.call("list_jobs")
            for job in jobs:
                if job["state"] in ("stopped", "killed", "interrupted"):
                    self.call("resume_job", job["id"])
                elif job["state"] in ("failed", "out_of_memory", "diverged"):
                    self.wrong.append(f"{job['id']} is {job['state']}: {self.call('job', job['id'])['message']}")
            if all(job["state"] in ("finished", "failed", "out_of_memory", "diverged") for job in jobs):
                return
            time.sleep(1)
        self.wrong.append("not every run came to its end")

    def verify(self) -> dict[str, int]:
        from studio.data import registry
        from studio.engine.checkpoints import fault_of
        from studio.jobs import folder as folders

        for name in self.datasets:
            registry.verify(registry.get(name))
        outcomes: dict[str, set[str]] = {}
        checkpoints = 0
        for folder in folders.every():
            for step in folder.checkpoint_steps():
                checkpoints += 1
                if fault := fault_of(folder.checkpoint(step)):
                    self.wrong.append(f"{folder.id}, checkpoint {step}: {fault}")
            if fault := fault_of(folder.adapter):
                self.wrong.append(f"{folder.id}, outcome: {fault}")
            outcomes.setdefault(folder.read_spec().output.name, set()).add(json.dumps(digests(folder.adapter)))
        self.wrong += [f"runs of {name} differ" for name, found in outcomes.items() if len(found) > 1]
        self.wrong += [f"{problem}" for problem in registry.problems()]
        return {"runs": len(list(folders.every())), "checkpoints": checkpoints, "datasets": len(self.datasets)}


class Refused(Exception):
    """An action that the studio declined in its own words, or that had nothing to act on."""


def spec(model: Path, number: int) -> dict[str, Any]:
    return {
        "model": {"name": str(model), "dtype": "fp32"},
        "quantization": {"kind": "none"},
        "data": {"datasets": ["arithmetic-en"], "max_length": 64, "max_samples": 60},
        "method": {"rank": 2 + number, "dropout": 0.1},
        "training": {"max_steps": 300, "batch_size": 2, "accumulation": 1, "save_steps": 40, "preflight": False},
        "evaluation": {"prompts": []},
        "output": {"name": f"spec-{number}"},
    }


def soaked(home: Path, minutes: float, seed: int) -> dict[str, Any]:
    from tests.engine.conftest import make

    model = make("llama", home.parent / "llama")
    port = 20_000 + random.Random(os.getpid()).randrange(20_000)
    process = subprocess.Popen(
        [sys.executable, "-m", "studio", "ui", "--no-browser", "--port", str(port)],
        cwd=CHECKOUT, env=os.environ | {"HF_HUB_OFFLINE": "1"}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        url = process.stdout.readline().split()[-1] if process.stdout else ""
        soak, server, memory = Soak(home, url, model, seed), psutil.Process(process.pid), []
        threads = [soak.run(f"look {n}", 1.0, soak.look) for n in range(4)]
        threads += [soak.run(*each) for each in (
            ("upload", 2.0, soak.upload), ("register", 6.0, soak.register), ("start", 6.0, soak.start),
            ("stop", 9.0, soak.stop), ("resume", 4.0, soak.resume), ("kill", 11.0, soak.kill),
            ("reorder", 7.0, soak.reorder),
        )]  # fmt: skip
        until = time.monotonic() + 60 * minutes
        while time.monotonic() < until and process.poll() is None:
            memory.append(server.memory_info().rss / 2**20)
            time.sleep(5)
        soak.over.set()
        for thread in threads:
            thread.join(90)
        soak.bring_to_an_end(PATIENCE_S)
        if process.poll() is not None:
            soak.wrong.append(f"the server ended with {process.returncode}")
        found = soak.verify()
    finally:
        process.terminate()
        process.wait(30)
    part = max(1, len(memory) // 5)
    early, late = statistics.median(memory[part : 2 * part]), statistics.median(memory[-part:])
    return {
        "minutes": minutes, "seed": seed, "actions": dict(sorted(soak.done.items())), **found,
        "server_mib": {"early": round(early), "late": round(late), "most": round(max(memory))},
        "wrong": soak.wrong,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder).resolve() / "home"
        os.environ["STUDIO_HOME"] = str(home)
        found = soaked(home, asked.minutes, asked.seed)
    print(json.dumps(found))
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
