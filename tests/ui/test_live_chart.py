import json

import gradio as gr
import pytest

from studio.events import Measured, Step
from studio.jobs.monitor import JobView
from studio.ui.live_chart import live_chart, points


def view_with(count, generation=0):
    steps = tuple(
        Step(step=n, epoch=n / 100, loss=1 / n, learning_rate=1e-3, grad_norm=None) for n in range(1, count + 1)
    )
    measured = (Measured(step=10, scores={"loss": 0.5}), Measured(step=20, scores={"accuracy": 1.0}))
    return JobView("run", "train", "run", 0.0, state="running", steps=steps, generation=generation, measured=measured)


class FakeMonitor:
    def __init__(self, view):
        self.view = view

    def get(self, job_id):
        return self.view if job_id == self.view.id else None


def test_the_first_answer_is_whole_and_small_enough_for_a_browser():
    answer = points(view_with(10_000), since=0, generation=0)
    assert answer["whole"]
    assert len(answer["series"]["loss"]["x"]) <= 2000
    assert answer["step"] == 10_000
    assert len(json.dumps(answer)) < 300_000


def test_later_answers_carry_only_new_steps():
    answer = points(view_with(100), since=97, generation=0)
    assert not answer["whole"]
    assert answer["series"]["loss"]["x"] == [98, 99, 100]


def test_an_answer_without_news_is_tiny():
    assert len(json.dumps(points(view_with(100), since=100, generation=0))) < 300


def test_a_resume_that_went_back_draws_anew():
    assert points(view_with(100, generation=1), since=97, generation=0)["whole"]


def test_values_that_are_not_known_leave_no_points():
    assert points(view_with(5), since=0, generation=0)["series"]["grad_norm"] == {"x": [], "y": []}


def test_only_measurements_with_a_loss_are_marks():
    assert points(view_with(5), since=0, generation=0)["measured"] == [[10, 0.5]]


def test_a_run_that_is_gone_is_an_empty_chart():
    assert points(None, since=5, generation=0)["series"]["loss"] == {"x": [], "y": []}


@pytest.mark.parametrize(
    "asked",
    [
        None,
        "run",
        {"run": "../etc", "since": 0, "generation": 0},
        {"run": "run", "since": "0", "generation": 0},
        {"run": ["run"], "since": 0, "generation": 0},
        {"run": "run", "since": 0},
    ],
)
def test_a_malformed_request_is_refused(asked):
    chart = live_chart(FakeMonitor(view_with(3)), elem_id="chart")
    with pytest.raises(gr.Error):
        chart.tail(asked)


def test_a_well_formed_request_is_answered():
    chart = live_chart(FakeMonitor(view_with(3)), elem_id="chart")
    assert chart.tail({"run": "run", "since": 0, "generation": 0})["step"] == 3
