"""How long `studio train` takes to its first step, part by part: `python -m tests.benchmarks.start [--runs 3]`.

Each run is the command itself in a shell's place, in a home of its own: once with rows that are new, and once more with
rows that are tokenised already. The parts are the phases in the run's events.jsonl; a run is stopped after its first
step. One command goes before, so that no file is read from disk for the first time. Medians and spread are printed,
and at the end one JSON object. Not a test: it asserts nothing. Not here: the page (tests.benchmarks.page).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from studio.events import Event, Phase, Sample, Started, Step
from studio.home import CHECKOUT, home
from studio.jobs.folder import JobFolder
from studio.jobs.journal import tail

MODEL = "smollm2-135m-instruct"
BUDGET_S = 20.0
"""Seconds from the command to the first step on two cores, the imports of a new process included."""
MOST_S = 240.0
COMMAND = ("-m", "studio", "train", "--preset", "identity")


def parts(began: float, events: Iterable[Event]) -> Iterator[tuple[str, float]]:
    """What the command did in turn, and for how many seconds, up to the first step. began: seconds since 1970."""
    doing, since = "process", began
    for event in events:
        match event:
            case Started():
                following = "imports"
            case Phase():
                following = event.name
            case Sample():
                doing, following = "answers", "first step"
            case Step():
                yield "first step" if doing == "train" else doing, event.time - since
                return
            case _:
                continue
        yield doing, event.time - since
        doing, since = following, event.time


def measured(place: Path) -> dict[str, float]:
    """The seconds of each part of one run in a home."""
    environment = os.environ | {"STUDIO_HOME": str(place), "HF_HUB_OFFLINE": "1"}
    seen = set(_jobs(place))
    began = time.time()
    process = subprocess.Popen([sys.executable, *COMMAND], env=environment, cwd=CHECKOUT, stdout=subprocess.DEVNULL)
    events: list[Event] = []
    while not any(isinstance(event, Step) for event in events):
        if time.time() - began > MOST_S or process.poll() not in (None, 0):
            raise SystemExit("the run came to no step")
        time.sleep(0.1)
        events = [event for folder in set(_jobs(place)) - seen for event in tail(folder.events)[0]]
    for folder in set(_jobs(place)) - seen:
        folder.ask_to_stop()
    process.wait(MOST_S)
    taken: dict[str, float] = {}
    for name, seconds in parts(began, events):
        taken[name] = taken.get(name, 0.0) + seconds
    return taken | {"all": sum(taken.values())}


def new_home(place: Path, model: Path) -> Path:
    """A home that holds the model and nothing else."""
    (place / "models").mkdir(parents=True)
    (place / "models" / MODEL).symlink_to(model, target_is_directory=True)
    return place


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest, rounded to milliseconds."""
    return {
        "median": round(statistics.median(values), 3),
        "least": round(min(values), 3),
        "greatest": round(max(values), 3),
    }


def told(name: str, figure: dict[str, float], unit: str = "s", budget: float | None = None) -> str:
    """One line of a figure: its median and spread, beside its budget."""
    line = f"{name:<34} {figure['median']:8.3f} {unit} ({figure['least']:.3f} to {figure['greatest']:.3f})"
    return line if budget is None else f"{line}, budget {budget:g} {unit}"


def _jobs(place: Path) -> list[JobFolder]:
    return [JobFolder(path.parent) for path in place.glob("jobs/*/job.json")]


def main() -> None:
    """Alternate new and known rows, and print each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--model", type=Path, default=home().models / MODEL, help="the folder of the bundled model")
    parser.add_argument("--json", action="store_true", help="print the last line only")
    asked = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {"rows new": [], "rows known": []}
    with tempfile.TemporaryDirectory() as folder:
        measured(new_home(Path(folder) / "warm", asked.model.resolve()))
        for number in range(asked.runs):
            place = new_home(Path(folder) / str(number), asked.model.resolve())
            for taken in runs.values():
                taken.append(measured(place))
    figures = {
        name: {part: spread([each.get(part, 0.0) for each in taken]) for part in taken[0]}
        for name, taken in runs.items()
    }
    if not asked.json:
        for name, found in figures.items():
            for part, figure in found.items():
                print(told(f"{name}, {part}", figure, budget=BUDGET_S if part == "all" else None))
    print(json.dumps({"unit": "s", "runs": asked.runs, "budgets": {"all": BUDGET_S}, "figures": figures}))


if __name__ == "__main__":
    main()
