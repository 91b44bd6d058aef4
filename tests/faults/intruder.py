"""Somebody who can send the page any request, and a look at what came of it. Not here: any test."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

MARKER = "kept-outside-of-the-studio"
"""Stands in files beside STUDIO_HOME, and must not come out of the page."""

API = "/gradio_api"


@dataclass
class Told:
    """What came of one event: its outputs, or the error that the page shows."""

    success: bool
    output: Any

    @property
    def text(self) -> str:
        return json.dumps(self.output, ensure_ascii=False, default=str)

    @property
    def error(self) -> str:
        return str((self.output or {}).get("error") or "") if not self.success else ""


@dataclass
class Intruder:
    """world: holds `home`, which is STUDIO_HOME, and beside it `outside`."""

    url: str
    world: Path
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.url, timeout=60)

    @property
    def home(self) -> Path:
        return self.world / "home"

    def config(self) -> dict[str, Any]:
        return self.http.get("/config").json()

    def call(self, name: str, *values: Any) -> Told:
        """A function of the named API, by plain HTTP."""
        joined = self.http.post(f"{API}/call/{name}", json={"data": list(values)})
        if joined.status_code != 200:
            return Told(False, {"error": joined.text})
        last: tuple[str, str] = ("", "null")
        with self.http.stream("GET", f"{API}/call/{name}/{joined.json()['event_id']}") as events:
            event = ""
            for line in events.iter_lines():
                event = line.removeprefix("event: ") if line.startswith("event: ") else event
                if line.startswith("data: ") and event in ("complete", "error", "generating"):
                    last = (event, line.removeprefix("data: "))
        return Told(last[0] != "error", json.loads(last[1]))

    def fire(self, events: list[dict[str, Any]], session: str | None = None) -> list[Told]:
        """Events by their number in the page, all at once; the queue has places for 256. Each has fn_index and data."""
        session = session or secrets.token_hex(8)
        ended: dict[str, Told] = {}
        refused: dict[int, Told] = {}
        order: dict[str, int] = {}
        for number, event in enumerate(events):
            body = {"session_hash": session, "event_data": None, "trigger_id": None} | event
            joined = self.http.post(f"{API}/queue/join", json=body)
            if joined.status_code == 200:
                order[joined.json()["event_id"]] = number
            else:
                refused[number] = Told(False, {"error": joined.text})
        if order:
            with self.http.stream("GET", f"{API}/queue/data", params={"session_hash": session}) as messages:
                for line in messages.iter_lines():
                    message = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
                    if message.get("msg") == "process_completed":
                        ended[message["event_id"]] = Told(message["success"], message["output"])
                    if len(ended) == len(order) or message.get("msg") == "close_stream":
                        break
        return [
            refused.get(number) or ended[next(each for each, place in order.items() if place == number)]
            for number in range(len(events))
        ]

    def everything_outside(self) -> dict[str, bytes | str]:
        """Each path beside STUDIO_HOME with what it holds."""
        paths = (path for path in sorted(self.world.rglob("*")) if not path.is_relative_to(self.home))
        return {str(path): path.read_bytes() if path.is_file() else "folder" for path in paths}

    def number(self, name: str) -> int:
        """The number of an event by its name in the page."""
        return next(each["id"] for each in self.config()["dependencies"] if each["api_name"] == name)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what a thread or a process does."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not happen within 60 s"
        time.sleep(0.05)
