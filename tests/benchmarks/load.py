"""What ten people at the page cost a run: `python -m tests.benchmarks.load [--sessions 10] [--phases 3]`.

One run trains SmolLM2 while phases without anybody and phases with sessions alternate. A session asks for what an open
page asks for, at its pace: the run's figures every second, the new points of its chart every 0.45 s, another tab now
and then, and an upload of a megabyte; over plain HTTP from one process, whose own time is told too, since it shares the
cores. Printed: the run's tokens a second of each kind of phase and their ratio, requests and errors, the server's CPU,
and whether each step that the run told came to each session. At the end one JSON object. Nobody chats: answers of a
model on this machine would compute on the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil

from studio.events import Step
from studio.home import home
from studio.jobs.folder import JobFolder
from studio.jobs.journal import tail
from tests.benchmarks.page import served
from tests.benchmarks.start import MODEL, new_home

BUDGET = 0.95
"""The least share of its speed that a run keeps."""
API = "/gradio_api"
WANTED = {
    "quantization": {"kind": "none"},
    "data": {"datasets": ["identity-en", "identity-zh"], "max_length": 128},
    "training": {"max_steps": 5000, "batch_size": 8, "accumulation": 1, "save_steps": 1000, "preflight": False},
    "evaluation": {"prompts": []},
    "output": {"name": "load"},
}


class Sessions:
    """So many open pages. What they asked for and what went wrong is counted."""

    def __init__(self, url: str, run: str, count: int):
        self.url, self.run, self.count = url, run, count
        self.asked: Counter[str] = Counter()
        self.errors: list[str] = []
        self.seen: list[set[int]] = []
        self.cpu_s = 0.0

    async def hold(self, seconds: float) -> None:
        """Be there for a while. Fills `seen` with the steps that came to each session."""
        before = psutil.Process().cpu_times()
        async with httpx.AsyncClient(base_url=self.url, timeout=30, limits=httpx.Limits(max_connections=None)) as http:
            config = (await http.get("/config")).json()
            look = next(each for each in config["dependencies"] if each["api_name"] == "train_look")
            opening = next(
                each["id"]
                for each in config["dependencies"]
                if each["outputs"] == look["outputs"] and each["targets"][0][1] == "load"
            )
            chart = next(each["id"] for each in config["components"] if each["props"].get("elem_id") == "train-chart")
            self.seen = [set() for _ in range(self.count)]
            until = time.monotonic() + seconds
            await asyncio.gather(
                *(
                    each
                    for number in range(self.count)
                    for each in (
                        self._points(http, chart, number, until),
                        self._looks(http, opening, look, until),
                        self._more(http, until),
                    )
                )
            )
        after = psutil.Process().cpu_times()
        self.cpu_s += after.user + after.system - before.user - before.system

    async def _ask(self, name: str, request: Any) -> Any:
        try:
            answer = await request
            answer.raise_for_status()
            self.asked[name] += 1
            return answer
        except httpx.HTTPError as error:
            self.errors.append(f"{name}: {type(error).__name__} {error}"[:200])
            return None

    async def _points(self, http: httpx.AsyncClient, chart: int, number: int, until: float) -> None:
        since, generation = 0, 0
        over = False
        while not over:
            over = time.monotonic() > until  # once more then, for what came last
            data = {"run": self.run, "since": since, "generation": generation, "figure": ""}
            body = {"component_id": chart, "fn_name": "tail", "session_hash": secrets.token_hex(6), "data": data}
            if answer := await self._ask("points", http.post(f"{API}/component_server", json=body)):
                told = answer.json()
                self.seen[number].update(told["series"]["figure"]["x"])
                since, generation = told["step"], told["generation"]
            await asyncio.sleep(0.45)

    async def _looks(self, http: httpx.AsyncClient, opening: int, look: dict[str, Any], until: float) -> None:
        session = secrets.token_hex(6)
        await self._event(http, session, opening, [])
        while time.monotonic() < until:
            await self._event(http, session, look["id"], [self.run, *[None] * (len(look["inputs"]) - 1)])
            await asyncio.sleep(1.0)

    async def _event(self, http: httpx.AsyncClient, session: str, number: int, data: list[Any]) -> None:
        body = {"session_hash": session, "fn_index": number, "data": data, "event_data": None, "trigger_id": None}
        if await self._ask("join", http.post(f"{API}/queue/join", json=body)):
            await self._ask("look", self._answered(http, session))

    async def _answered(self, http: httpx.AsyncClient, session: str) -> httpx.Response:
        async with http.stream("GET", f"{API}/queue/data", params={"session_hash": session}) as messages:
            async for line in messages.aiter_lines():
                if '"process_completed"' in line:
                    if '"success":true' not in line.replace(" ", ""):
                        self.errors.append(line[:200])
                    break
            return messages

    async def _more(self, http: httpx.AsyncClient, until: float) -> None:
        body = b'{"instruction": "a", "output": "b"}\n' * 28_000
        while time.monotonic() < until:
            await self._ask("page", http.get("/?tab=data"))
            await self._ask("upload", http.post(f"{API}/upload", files={"files": ("rows.jsonl", body)}))
            await asyncio.sleep(10.0)


def measured(url: str, folder: JobFolder, server: psutil.Process, count: int, phases: int, seconds: float) -> dict:
    """Alternate phases. Returns: all figures."""
    sessions = Sessions(url, folder.id, count)
    rates: dict[str, list[float]] = {"alone": [], "watched": []}
    lost, server_s = 0, 0.0
    for _ in range(phases):
        for kind in rates:
            began, before = time.time(), server.cpu_times()
            if kind == "watched":
                asyncio.run(sessions.hold(seconds))
                after = server.cpu_times()
                server_s += after.user + after.system - before.user - before.system
            else:
                time.sleep(seconds)
            ended = began + seconds  # some of what was asked for last was answered later
            told = [event for event in tail(folder.events)[0] if isinstance(event, Step)]
            during = [step for step in told if began + 1 < step.time < ended - 1]
            rates[kind] += [step.tokens_per_s for step in during if step.tokens_per_s]
            if kind == "watched":
                wanted = {step.step for step in during}
                lost += sum(len(wanted - seen) for seen in sessions.seen)
    medians = {kind: statistics.median(values) for kind, values in rates.items()}
    held_s = phases * seconds
    return {
        "sessions": count,
        "tokens_per_s": medians,
        "steps": {kind: len(values) for kind, values in rates.items()},
        "ratios": {"watched/alone": round(medians["watched"] / medians["alone"], 4)},
        "asked": dict(sessions.asked),
        "errors": sessions.errors[:10],
        "lost_events": lost,
        "cpu_share": {"server": round(server_s / held_s, 3), "sessions": round(sessions.cpu_s / held_s, 3)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--phases", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--model", type=Path, default=home().models / MODEL, help="the folder of the bundled model")
    parser.add_argument("--json", action="store_true", help="print the last line only")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        fresh = new_home(Path(place) / "home", asked.model.resolve())
        os.environ["STUDIO_HOME"] = str(fresh)
        with served(fresh) as (url, _):
            port = int(url.rpartition(":")[2])
            server = next(each for each in psutil.Process().children() if f"{port}" in " ".join(each.cmdline()))
            from studio import specs
            from studio.jobs import control

            folder = control.submit(specs.parse(specs.TrainSpec, WANTED))
            until = time.monotonic() + 120
            while len([event for event in tail(folder.events)[0] if isinstance(event, Step)]) < 5:
                if time.monotonic() > until:
                    sys.exit("the run does not begin")
                time.sleep(0.5)
            figures = measured(url, folder, server, asked.sessions, asked.phases, asked.seconds)
            control.stop(folder.id)
            control.wait(folder)
    if not asked.json:
        for name, value in figures.items():
            print(f"{name:<14}{value}")
        print(f"{'budget':<14}watched/alone at least {BUDGET}, no errors, no lost events")
    print(json.dumps(figures | {"budget": BUDGET}))


if __name__ == "__main__":
    main()
