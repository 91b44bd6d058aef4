"""What ten people at the page cost a run: `python -m tests.benchmarks.load [--talking 2] [--threads 1]`.

One run trains SmolLM2 while phases without anybody and phases with sessions alternate. A session asks for what an open
page asks for, at its pace: how the run stands and the new points of its chart twice a second, a look where more has
changed, another tab and an upload of a megabyte every ten seconds; some chat. The pages are opened before the clock
runs. All over plain HTTP from one process, whose own time is told too, since it shares the cores. Printed: the run's
tokens a second of each kind of phase and their ratio, requests and errors, the server's CPU, and whether each step that
the run told came to each session. At the end one JSON object.

A run computes on all cores, and whatever else does anything takes its time from it; with --threads it leaves some free,
as a run on a GPU does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import secrets
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import psutil

from studio import specs
from studio.events import Step
from studio.home import home
from studio.jobs import control
from studio.jobs.folder import JobFolder
from studio.jobs.journal import tail
from studio.serving import client
from studio.specs import BUNDLED_MODEL, Sampling
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

    def __init__(self, url: str, run: str, count: int, talking: int):
        self.url, self.run, self.count, self.talking = url, run, count, talking
        self.asked: Counter[str] = Counter()
        self.errors: list[str] = []
        self.seen: list[set[int]] = []
        self.cpu_s = 0.0

    async def open(self) -> None:
        """Open all pages, each as a session of its own."""
        async with self._client() as http:
            config = (await http.get("/config")).json()
            self._event_of = {each["api_name"]: each for each in config["dependencies"]}
            first = next(
                each["id"]
                for each in config["dependencies"]
                if each["outputs"] == self._event_of["train_look"]["outputs"] and each["targets"][0][1] == "load"
            )
            ids = {each["props"].get("elem_id"): each["id"] for each in config["components"]}
            self._live = ids["train-chart"]
            self._pages = [secrets.token_hex(6) for _ in range(self.count)]
            for page in self._pages:
                await self._ask("page", http.get("/?tab=train"))
                await self._event(http, page, first, [])

    async def hold(self, seconds: float) -> None:
        """Be there for a while. Fills `seen` with the steps that came to each page."""
        before = psutil.Process().cpu_times()
        self.seen = [set() for _ in self._pages]
        until = time.monotonic() + seconds
        async with self._client() as http:
            await asyncio.gather(
                *(self._watch(http, number, until) for number in range(self.count)),
                *(self._more(http, page, until) for page in self._pages),
                *(self._talk(until) for _ in range(self.talking)),
            )
        after = psutil.Process().cpu_times()
        self.cpu_s += after.user + after.system - before.user - before.system

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=30, limits=httpx.Limits(max_connections=None))

    async def _ask(self, name: str, request: Any) -> Any:
        try:
            answer = await request
            answer.raise_for_status()
            self.asked[name] += 1
            return answer
        except httpx.HTTPError as error:
            self.errors.append(f"{name}: {type(error).__name__} {error}"[:200])
            return None

    async def _watch(self, http: httpx.AsyncClient, number: int, until: float) -> None:
        await asyncio.sleep(0.5 * number / self.count)  # pages do not ask in step
        session, look = self._pages[number], self._event_of["train_look"]
        since, generation, stamp, seen = 0, 0, "", None
        over = False
        while not over:
            over = time.monotonic() > until  # once more then, for what came last
            data = {"run": self.run, "since": since, "generation": generation, "figure": "", "status": stamp}
            body = {
                "component_id": self._live,
                "fn_name": "tail",
                "session_hash": session,
                "data": data | {"language": "en"},
            }
            if answer := await self._ask("points", http.post(f"{API}/component_server", json=body)):
                told = answer.json()
                self.seen[number].update(told["series"]["figure"]["x"])
                since, generation = told["step"], told["generation"]
                stamp = told["status"]["stamp"] if told["status"] else stamp
                if seen not in (None, told["mark"]):
                    await self._event(http, session, look["id"], [self.run, *[None] * (len(look["inputs"]) - 1)])
                seen = told["mark"]
            await asyncio.sleep(0.5)  # as the page: every second round of 250 ms

    async def _talk(self, until: float) -> None:
        address = await asyncio.to_thread(client.ensure, BUNDLED_MODEL)
        asked = [("base", [{"role": "user", "content": "Why is the sky blue?"}])]
        while time.monotonic() < until:
            async with aclosing(client.stream(address, asked, Sampling(max_tokens=32))) as deltas:
                async for delta in deltas:
                    if delta.error:
                        self.errors.append(delta.error)
                    if delta.done:
                        self.asked["answers"] += 1
                        self.asked["answered tokens"] += delta.tokens
                    if time.monotonic() > until:
                        break
            await asyncio.sleep(5.0)

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

    async def _more(self, http: httpx.AsyncClient, session: str, until: float) -> None:
        body = b'{"instruction": "a", "output": "b"}\n' * 28_000
        while time.monotonic() < until:
            await asyncio.sleep(random.uniform(2, 8))
            await self._event(http, session, self._event_of["evaluate_selected"]["id"], [None])
            await self._ask("upload", http.post(f"{API}/upload", files={"files": ("rows.jsonl", body)}))
            await asyncio.sleep(5.0)


def measured(sessions: Sessions, folder: JobFolder, server: psutil.Process, phases: int, seconds: float) -> dict:
    """Alternate phases. Returns: all figures."""
    rates: dict[str, list[float]] = {"alone": [], "watched": []}
    lost, server_s = 0, 0.0
    for _ in range(phases):
        for kind in rates:
            if kind == "watched":
                asyncio.run(sessions.open())
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
        "sessions": sessions.count,
        "talking": sessions.talking,
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
    parser.add_argument("--talking", type=int, default=0, help="how many of them chat with the base")
    parser.add_argument("--threads", type=int, help="that the run and the chat server compute with; else all cores")
    parser.add_argument("--phases", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--model", type=Path, default=home().models / MODEL, help="the folder of the bundled model")
    parser.add_argument("--json", action="store_true", help="print the last line only")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        fresh = new_home(Path(place) / "home", asked.model.resolve())
        os.environ["STUDIO_HOME"] = str(fresh)
        if asked.threads:
            os.environ["OMP_NUM_THREADS"] = str(asked.threads)
        with served(fresh) as (url, _):
            port = int(url.rpartition(":")[2])
            server = next(each for each in psutil.Process().children() if f"{port}" in " ".join(each.cmdline()))
            folder = control.submit(specs.parse(specs.TrainSpec, WANTED))
            until = time.monotonic() + 120
            while len([event for event in tail(folder.events)[0] if isinstance(event, Step)]) < 5:
                if time.monotonic() > until:
                    sys.exit("the run does not begin")
                time.sleep(0.5)
            if asked.talking:
                client.ensure(BUNDLED_MODEL)  # loading is no part of the load
            sessions = Sessions(url, folder.id, asked.sessions, asked.talking)
            figures = {"threads": asked.threads} | measured(sessions, folder, server, asked.phases, asked.seconds)
            client.stop()
            control.stop(folder.id)
            control.wait(folder)
    if not asked.json:
        for name, value in figures.items():
            print(f"{name:<14}{value}")
        print(f"{'budget':<14}watched/alone at least {BUDGET}, no errors, no lost events")
    print(json.dumps(figures | {"budget": BUDGET}))


if __name__ == "__main__":
    main()
