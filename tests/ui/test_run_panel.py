import time

import pytest
from filelock import FileLock

from studio.events import Ended, Note, Phase, Sample, Started, Step
from studio.jobs import folder as folders
from studio.jobs.journal import Journal
from studio.jobs.monitor import Monitor
from studio.specs import TrainSpec, parse
from studio.ui import run_panel


@pytest.fixture
def run(studio_home):
    folder = folders.create("train", parse(TrainSpec, {"data": {"datasets": ["x"]}}), "run")
    with FileLock(folder.lock):
        journal = Journal(folder.events, 1)
        journal.append(Started(pid=1, host="h"))
        yield folder, journal


@pytest.fixture
def monitor(run):
    return Monitor().refresh()


def step(number):
    return Step(step=number, epoch=0.1, loss=1 / number, learning_rate=1e-4)


def mark(monitor, run, words="en"):
    return run_panel.mark(monitor, monitor.refresh().get(run.id), words)


def sent(monitor, run):
    return {name: str(part) for name, part in run_panel._parts(monitor, monitor.get(run.id), "en").items()}


@pytest.mark.parametrize("event", [step(1), Phase(name="tokenizing", done=5, total=9, unit="rows")])
def test_a_step_asks_for_no_look_and_changes_nothing_that_a_look_sends(run, monitor, event):
    folder, journal = run
    before, content = mark(monitor, folder), sent(monitor, folder)
    journal.append(event.model_copy(update={"time": time.time()}))  # or it would seem to have said nothing for long
    assert (mark(monitor, folder), sent(monitor, folder)) == (before, content)


@pytest.mark.parametrize(
    "event",
    [Note(text="slow"), Sample(step=1, prompt="a", answer="b"), Ended(state="finished"), Started(pid=2, host="h")],
)
def test_anything_else_that_a_run_tells_asks_for_a_look(run, monitor, event):
    folder, journal = run
    before = mark(monitor, folder)
    journal.append(event)
    assert mark(monitor, folder) != before


def test_its_log_another_run_and_another_language_ask_for_a_look(run, monitor):
    folder, _ = run
    marks = [mark(monitor, folder), mark(monitor, folder, "zh")]
    folder.log.write_text("a line\n")
    marks.append(mark(monitor, folder))
    folders.create("train", parse(TrainSpec, {"data": {"datasets": ["x"]}}), "other")
    marks.append(mark(monitor, folder))
    assert len(set(marks)) == 4
