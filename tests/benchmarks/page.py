"""How fast the page is, in a headless Chromium: `python -m tests.benchmarks.page [--runs 3] [--only start,point,…]`.

    start    to a Train tab that can be used: from the process of `studio ui`, and from the browser's first request of
             that server, which has just started ("page")
    point    from the click on Start to the first loss on the chart; the model trains, with the preset identity
    event    from a step in events.jsonl to its point on the chart of a live run
    long     a run of 100,000 steps: opening it, and the time between two frames while it is moved about
    tabs     changing the tab with 200 old runs in the home, whose events fill a gigabyte

Old and live runs are journals written here; nothing trains but for `point`. Chromium runs before the clock starts, and
each server but the first starts with its files in memory. Medians and spread are printed beside their budgets, and at
the end one JSON object. Not a test: it asserts nothing. Not here: the parts of a run's start (tests.benchmarks.start).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from playwright.sync_api import Browser, Page, sync_playwright

import launch
from studio import presets, specs
from studio.events import Ended, Plan, Started, Step
from studio.home import CHECKOUT, home
from studio.jobs import folder as folders
from studio.jobs.folder import JobFolder
from studio.jobs.journal import Journal, tail
from tests.benchmarks.start import MODEL, new_home, spread, told
from tests.browser.conftest import FLAGS

BUDGETS = {
    "page": 3.0,
    "start": 6.0,
    "point, page just opened": 15.0,
    "point, page open for 20 s": 15.0,
    "point, rows known": 15.0,
    "event, 95th percentile": 1.0,
    "long, chosen": 1.0,
    "long, page opened on it": 4.0,
    "long, frame, 95th percentile": 0.05,
    "tabs, slowest": 0.5,
}
"""Seconds, on two cores."""
LONG_STEPS, OLD_RUNS, OLD_STEPS = 100_000, 200, 30_000
LOOKED_S = 20.0
"""How long somebody looks at the page before pressing Start."""

UNTIL = """(done) => new Promise((resolve) => {
  const drawn = () => requestAnimationFrame(() => requestAnimationFrame(resolve));
  const look = () => (done() ? drawn() : requestAnimationFrame(look));
  look();
})"""
"""Resolves when a frame is drawn after the function says yes."""

CHANGE_TAB = f"""async (name) => {{
  const began = performance.now();
  document.querySelector(`#tab-${{name}}-button`).click();
  await ({UNTIL})(() => document.querySelector(`#tab-${{name}}`)?.offsetParent);
  return (performance.now() - began) / 1000;
}}"""

CHOOSE_LONG = f"""async (option) => {{
  const began = performance.now();
  option.dispatchEvent(new MouseEvent("mousedown", {{ bubbles: true }}));
  const box = document.querySelector(".live-chart");
  await ({UNTIL})(() => Number(box.dataset.step ?? 0) === {LONG_STEPS});
  return (performance.now() - began) / 1000;
}}"""

NOTE_STEPS = """() => {
  const box = document.querySelector(".live-chart");
  window.drawn = [];
  new MutationObserver(() => requestAnimationFrame(() =>
    window.drawn.push([Number(box.dataset.step ?? 0), Date.now() / 1000]))
  ).observe(box, { attributes: true, attributeFilter: ["data-step"] });
}"""

NOTE_FRAMES = """() => {
  window.frames_s = [];
  let before = performance.now();
  const note = (now) => {
    window.frames_s.push((now - before) / 1000);
    before = now;
    if (!window.noted) requestAnimationFrame(note);
  };
  window.noted = false;
  requestAnimationFrame(note);
}"""


@contextmanager
def served(place: Path) -> Iterator[tuple[str, float]]:
    """A process of `studio ui`. Gives its address, and when it was started: seconds of time.perf_counter."""
    port = _free_port()
    environment = os.environ | {"STUDIO_HOME": str(place), "HF_HUB_OFFLINE": "1"}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "studio", "ui", "--no-browser", "--port", str(port)],
        env=environment,
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        if "http" not in line:
            raise SystemExit("the page is not served")
        yield line.split()[-1], began
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def opened(browser: Browser, url: str, query: str = "?tab=train") -> Iterator[Page]:
    """A page in a context of its own, whose Train tab can be used."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-US")
    page = context.new_page()
    page.goto(f"{url}/{query}", wait_until="commit")
    page.wait_for_selector("#train-start", timeout=60_000)
    page.wait_for_function("document.querySelector('#train-machine').innerText.length > 20", polling=20)
    yield page
    context.close()


def starts(browser: Browser, place: Path, runs: int) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {"page": [], "start": []}
    for number in range(runs + 1):
        with served(place) as (url, began):
            answering = time.perf_counter() - began
            with opened(browser, url):
                usable = time.perf_counter() - began
        if number:
            taken["page"].append(usable - answering)
            taken["start"].append(usable)
    return taken


def first_points(browser: Browser, place: Path, runs: int) -> dict[str, list[float]]:
    """Of a run with new rows on a page that was just opened, and of two more with known rows."""
    taken: dict[str, list[float]] = {name: [] for name in BUDGETS if name.startswith("point")}
    for number in range(runs):
        fresh = new_home(place / f"point-{number}", place / "models" / MODEL)
        with served(fresh) as (url, _):
            for name, looked_s in zip(taken, (0.0, LOOKED_S, LOOKED_S), strict=True):
                if name.endswith("20 s"):  # new rows again
                    subprocess.run(["rm", "-rf", str(fresh / "cache")], check=True)
                with opened(browser, url) as page:
                    taken[name].append(_first_point(page, looked_s))
                _end_runs(fresh)
    return taken


def _first_point(page: Page, looked_s: float) -> float:
    page.locator("#train-preset input").click()
    page.get_by_role("option", name=re.compile("^identity ·")).click()
    page.wait_for_function("document.querySelector('#spec-data-datasets').innerText.includes('identity-en')")
    page.wait_for_timeout(looked_s * 1000)
    before = page.locator(".live-chart").get_attribute("data-run") or ""
    began = time.perf_counter()
    page.locator("#train-start").click()
    page.wait_for_function(
        "(before) => { const { run, points } = document.querySelector('.live-chart').dataset;"
        "return run && run !== before && Number(points) > 0 }",
        arg=before,
        polling=20,
        timeout=240_000,
    )
    return time.perf_counter() - began


def _end_runs(place: Path) -> None:
    for about in place.glob("jobs/*/job.json"):
        folder = JobFolder(about.parent)
        folder.ask_to_stop()
        while not any(isinstance(event, Ended) for event in tail(folder.events)[0]):
            time.sleep(0.2)


def delays(browser: Browser, place: Path, runs: int) -> dict[str, list[float]]:
    """Seconds from each of many steps' writing to its drawing."""
    folder = _run("live")
    found: list[float] = []
    with FileLock(folder.lock):
        journal = _begun(folder, 10_000)
        for step in range(1, 500):
            journal.append(_step(step))
        with served(place) as (url, _), opened(browser, url, f"?tab=train&run={folder.id}") as page:
            page.wait_for_function("Number(document.querySelector('.live-chart').dataset.step ?? 0) >= 499")
            page.evaluate(NOTE_STEPS)
            written = _write_steps(journal, page, range(500, 500 + 60 * runs))
            drawn = page.evaluate("window.drawn")
            for step, when in written.items():
                found.append(next(at for last, at in drawn if last >= step) - when)
        journal.append(Ended(state="stopped"))
    return {"event": found, "event, 95th percentile": [statistics.quantiles(found, n=20)[-1]]}


def _write_steps(journal: Journal, page: Page, steps: range) -> dict[int, float]:
    """Write one step every third of a second or so, from a thread. Returns: when each was written."""
    written: dict[int, float] = {}

    def write() -> None:
        chance = random.Random(7)
        for step in steps:
            written[step] = time.time()
            journal.append(_step(step))
            time.sleep(chance.uniform(0.1, 0.6))

    thread = threading.Thread(target=write)
    thread.start()
    while thread.is_alive():
        page.wait_for_timeout(200)
    page.wait_for_function(f"window.drawn.some(([step]) => step >= {steps[-1]})")
    return written


def long_run(browser: Browser, place: Path, runs: int) -> dict[str, list[float]]:
    short, folder = _old_run("short", 50), _old_run("long", LONG_STEPS)
    taken: dict[str, list[float]] = {"long, served": [], "long, page opened on it": [], "long, chosen": []}
    frames: list[float] = []
    for _ in range(runs):
        with served(place) as (url, began):
            taken["long, served"].append(time.perf_counter() - began)
            began = time.perf_counter()
            with opened(browser, url, f"?tab=train&run={folder.id}") as page:
                _drawn(page, LONG_STEPS)
                taken["long, page opened on it"].append(time.perf_counter() - began)
            with opened(browser, url, f"?tab=train&run={short.id}") as page:
                _drawn(page, 50)
                page.locator("#train-run input").click()
                option = page.get_by_role("option", name=folder.id)
                taken["long, chosen"].append(option.evaluate(CHOOSE_LONG))
                frames += _frames(page)
    shares = {"long, frame": frames, "long, frame, 95th percentile": [statistics.quantiles(frames, n=20)[-1]]}
    return taken | shares


def _drawn(page: Page, step: int) -> None:
    page.wait_for_function(f"document.querySelector('.live-chart').dataset.step === '{step}'", polling=20)


def _frames(page: Page) -> list[float]:
    """Seconds between frames while the chart is dragged to and fro, a quarter of the run in sight."""
    page.evaluate(
        "Plotly.relayout(document.querySelector('.live-chart'), {'xaxis.range': [4e4, 6.5e4], dragmode: 'pan'})"
    )
    page.locator(".live-chart").scroll_into_view_if_needed()
    box = page.locator(".live-chart .nsewdrag").first.bounding_box() or {}
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.evaluate(NOTE_FRAMES)
    for number in range(120):
        page.mouse.move(x + 150 - abs(number % 60 - 30) * 10, y)
        page.wait_for_timeout(10)
    page.evaluate("window.noted = true")
    page.mouse.up()
    return page.evaluate("window.frames_s")[1:]


def tabs(browser: Browser, place: Path, runs: int) -> dict[str, list[float]]:
    first = _old_run("old-0", OLD_STEPS)
    for number in range(1, OLD_RUNS):
        shutil.copyfile(first.events, _old_run(f"old-{number}", 1).events)
    taken: dict[str, list[float]] = {"tabs, served": [], "tabs, page opened": [], "tabs, slowest": []}
    for _ in range(runs):
        with served(place) as (url, began):
            taken["tabs, served"].append(time.perf_counter() - began)
            began = time.perf_counter()
            with opened(browser, url) as page:
                taken["tabs, page opened"].append(time.perf_counter() - began)
                page.wait_for_timeout(1500)
                slowest = 0.0
                for name in ("data", "template", "evaluate", "chat", "export", "train", "data", "train", "evaluate"):
                    seconds = page.evaluate(CHANGE_TAB, name)
                    taken.setdefault(f"tabs, {name}", []).append(seconds)
                    slowest = max(slowest, seconds)
                    page.wait_for_timeout(700)
                taken["tabs, slowest"].append(slowest)
    return taken


def _run(name: str) -> JobFolder:
    values = specs.read_yaml(presets.text("identity"), "identity") | {"output": {"name": name}}
    return folders.create("train", specs.parse(specs.TrainSpec, values), name)


def _old_run(name: str, steps: int) -> JobFolder:
    folder = _run(name)
    journal = _begun(folder, steps)
    with folder.events.open("a", encoding="utf-8") as file:
        file.writelines(f"{_step(step, 1).model_dump_json(exclude_none=True)}\n" for step in range(1, steps + 1))
    journal.append(Ended(state="finished"))
    journal.close()
    return folder


def _begun(folder: JobFolder, steps: int) -> Journal:
    journal = Journal(folder.events, 1)
    journal.append(Started(pid=1, host="benchmark"))
    counts = {"rows": 96, "effective_batch_size": 8, "trainable_parameters": 4_884_480, "total_parameters": 139_399_488}
    journal.append(Plan(total_steps=steps, device="cpu", **counts))
    return journal


def _step(step: int, attempt: int = 0) -> Step:
    chance = random.Random(step)
    return Step(
        attempt=attempt,
        step=step,
        epoch=round(step / 12, 4),
        loss=1 + 4 / (1 + step / 50) + chance.gauss(0, 0.1),
        learning_rate=1e-3 / (1 + step / 1000),
        grad_norm=1 + chance.random(),
        tokens_per_s=200 + chance.random(),
        seconds=1.5,
        memory_gib=2.1,
        figures={"entropy": 3 + chance.random(), "mean_token_accuracy": chance.random()},
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


PARTS: dict[str, Any] = {"start": starts, "point": first_points, "event": delays, "long": long_run, "tabs": tabs}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for, each in a home of its own, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between them")
    parser.add_argument("--model", type=Path, default=home().models / MODEL, help="the folder of the bundled model")
    parser.add_argument("--json", action="store_true", help="print the last line only")
    asked = parser.parse_args(arguments)
    figures: dict[str, dict[str, float]] = {}
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        path = launch.find_chromium(os.environ.get("STUDIO_CHROMIUM"))
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        for name in asked.only.split(","):
            place = new_home(Path(folder) / name, asked.model.resolve())
            os.environ["STUDIO_HOME"] = str(place)
            for figure, values in PARTS[name](browser, place, asked.runs).items():
                figures[figure] = spread(values)
                if not asked.json:
                    print(told(figure, figures[figure], budget=BUDGETS.get(figure)), flush=True)
        browser.close()
    print(json.dumps({"unit": "s", "runs": asked.runs, "budgets": BUDGETS, "figures": figures}))


if __name__ == "__main__":
    main()
