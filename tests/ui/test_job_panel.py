from dataclasses import replace

from studio.events import Ended, Phase
from studio.jobs.monitor import JobView, Monitor
from studio.ui import adapters, job_panel
from tests.examples import finished_run
from tests.ui.recorded import HOSTILE

VIEW = JobView("e", "evaluate", "e", 0.0, state="running", spec={"run": "identity", "checkpoint": 24})


def test_a_live_job_shows_its_phase_in_words_and_how_far_it_is():
    view = replace(VIEW, phase=Phase(name="evaluate", done=1500, total=2000, unit="rows"))
    markup = job_panel.status(view, "en")
    assert "Measuring 1,500 / 2,000 rows" in markup
    assert "max='2000' value='1500'" in markup
    assert "正在测量 1,500 / 2,000 行" in job_panel.status(view, "zh")


def test_an_ended_job_shows_its_message_without_a_bar():
    view = replace(VIEW, state="failed", ended=Ended(state="failed", message=HOSTILE))
    markup = job_panel.status(view, "en")
    assert "<progress" not in markup
    assert "<img" not in markup and "&lt;img" in markup


def test_notes_are_escaped():
    assert "<img" not in job_panel.status(replace(VIEW, notes=(HOSTILE,)), "en")


def test_a_job_in_the_list_says_of_which_run_and_step_and_how_it_stands():
    label = job_panel.label(VIEW, "en")
    assert label.startswith("identity @24 · ") and label.endswith(" · Running")


def test_adapters_are_those_of_runs_with_something_to_load(studio_home):
    first = finished_run("first", checkpoints=[12])
    monitor = Monitor().refresh()
    assert [value for _, value in adapters.choices(monitor)] == [first.id, f"{first.id}@12"]
    assert adapters.newest(monitor) == first.id


def test_a_choice_is_split_into_run_and_step():
    assert adapters.split("run@12") == {"run": "run", "checkpoint": 12}
    assert adapters.split("run") == {"run": "run", "checkpoint": None}
