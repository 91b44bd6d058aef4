import json

import gradio as gr
import pytest

from studio.events import Measured, Step
from studio.jobs.monitor import JobView
from studio.ui.live_run import live_run, points
from studio.ui.run_figures import best


def view_with(count, generation=0):
    steps = tuple(
        Step(step=n, epoch=n / 100, loss=1 / n, learning_rate=1e-3, grad_norm=None) for n in range(1, count + 1)
    )
    measured = (Measured(step=10, scores={"loss": 0.5}), Measured(step=20, scores={"accuracy": 1.0}))
    return JobView("run", "train", "run", 0.0, state="running", steps=steps, generation=generation, measured=measured)


class FakeMonitor:
    def __init__(self, view):
        self.view = view

    def now(self, job_id):
        return self.view if job_id == self.view.id else None


def test_the_first_answer_is_whole_and_small_enough_for_a_browser():
    answer = points(view_with(10_000), since=0, generation=0)
    assert answer["whole"]
    assert len(answer["series"]["figure"]["x"]) <= 2000
    assert answer["step"] == 10_000
    assert len(json.dumps(answer)) < 300_000


def test_later_answers_carry_only_new_steps():
    answer = points(view_with(100), since=97, generation=0)
    assert not answer["whole"]
    assert answer["series"]["figure"]["x"] == [98, 99, 100]


def test_an_answer_without_news_is_tiny():
    assert len(json.dumps(points(view_with(100), since=100, generation=0))) < 400


def test_a_resume_that_went_back_draws_anew():
    assert points(view_with(100, generation=1), since=97, generation=0)["whole"]


def test_values_that_are_not_known_leave_no_points():
    assert points(view_with(5), since=0, generation=0)["series"]["grad_norm"] == {"x": [], "y": []}


def test_only_measurements_with_a_loss_are_marks():
    assert points(view_with(5), since=0, generation=0)["measured"] == [[10, 0.5]]


def preferring(stage="dpo"):
    figures = {"rewards/margins": 0.1, "rewards/accuracies": 0.6, "entropy": 2.0}
    steps = tuple(
        Step(step=n, epoch=n, loss=1 / n, learning_rate=1e-3, figures=figures | {"entropy": float(n)})
        for n in range(1, 6)
    )
    measured = (
        Measured(step=0, scores={"loss": 0.9, "rewards/margins": 0.0, "rows": 8.0}),
        Measured(step=4, subject="test", scores={"loss": 0.1}),
        Measured(step=5, scores={"loss": 0.5, "rewards/margins": 0.4}),
    )
    return JobView("run", "train", "run", 0.0, spec={"stage": {"kind": stage}}, steps=steps, measured=measured)


def test_what_the_stage_is_about_comes_first_and_is_drawn_unless_another_is_chosen():
    answer = points(preferring(), since=0, generation=0)
    assert answer["figures"] == ["rewards/margins", "rewards/accuracies", "loss", "entropy"]
    assert (answer["figure"], answer["series"]["figure"]["y"]) == ("rewards/margins", [0.1] * 5)
    assert answer["measured"] == [[0, 0.0], [5, 0.4]]
    chosen = points(preferring(), since=0, generation=0, figure="entropy")
    assert (chosen["figure"], chosen["series"]["figure"]["y"], chosen["measured"]) == ("entropy", [1, 2, 3, 4, 5], [])


def test_a_figure_that_the_run_does_not_have_is_its_first():
    assert points(preferring("sft"), since=0, generation=0, figure="reward")["figure"] == "loss"


def test_only_the_loss_of_text_is_in_nats_per_token():
    assert points(preferring("sft"), since=0, generation=0)["nats"]
    assert not points(preferring(), since=0, generation=0, figure="loss")["nats"]


def test_the_best_validation_is_the_least_loss_or_the_most_reward_and_no_test():
    assert best(preferring()) == (5, "loss", 0.5)
    rewarded = (Measured(step=n, scores={"loss": n, "reward": reward}) for n, reward in ((1, 0.2), (2, 0.7), (3, 0.7)))
    assert best(JobView("run", "train", "run", 0.0, measured=tuple(rewarded))) == (2, "reward", 0.7)
    assert best(view_with(0)) == (10, "loss", 0.5)
    assert best(JobView("run", "train", "run", 0.0)) is None


def test_a_run_that_is_gone_is_an_empty_chart():
    assert points(None, since=5, generation=0)["series"]["figure"] == {"x": [], "y": []}


ASKED = {"run": "run", "since": 0, "generation": 0, "figure": "", "status": "", "language": "en"}


def live(monitor, **more):
    return live_run(
        monitor, lambda view, language: f"{view and view.news} {language}", elem_id="a", status_id="b", **more
    )


@pytest.mark.parametrize(
    "asked",
    [
        None,
        "run",
        ASKED | {"run": "../etc"},
        ASKED | {"since": "0"},
        ASKED | {"run": ["run"]},
        {"run": "run", "since": 0},
        ASKED | {"figure": 1},
        ASKED | {"status": None},
        ASKED | {"language": "fr"},
    ],
)
def test_a_malformed_request_is_refused(asked):
    with pytest.raises(gr.Error):
        live(FakeMonitor(view_with(3))).tail(asked)


def test_an_answer_has_the_points_how_the_run_stands_and_the_mark_of_a_look():
    answer = live(FakeMonitor(view_with(3))).tail(ASKED | {"language": "zh"})
    assert (answer["step"], answer["mark"], answer["live"]) == (3, "0 zh", True)
    assert "0.3333" in answer["status"]["html"] and 'data-state="running"' in answer["status"]["html"]


def test_how_a_run_stands_is_told_once():
    of = live(FakeMonitor(view_with(3)))
    stamp = of.tail(ASKED)["status"]["stamp"]
    assert of.tail(ASKED | {"status": stamp})["status"] is None
    of = live(FakeMonitor(view_with(4)))
    assert of.tail(ASKED | {"status": stamp})["status"]["stamp"] != stamp


def test_whoever_looks_at_no_live_run_may_start_one():
    signs = []
    of = live(FakeMonitor(view_with(3)), ready=lambda: signs.append(1))
    of.tail(ASKED)
    assert signs == []
    assert not of.tail(ASKED | {"run": ""})["live"]
    assert signs == [1]


def losses(values):
    steps = tuple(Step(step=n, epoch=0.1, loss=value, learning_rate=1e-3) for n, value in enumerate(values, start=1))
    return JobView("run", "train", "run", 0.0, state="running", steps=steps)


def noisy(count):
    return [2.0 - 0.004 * n + 0.05 * ((n * 7919) % 13 - 6) / 6 for n in range(count)]


def test_a_spike_is_marked_where_it_was_and_a_noisy_fall_has_none():
    calm = noisy(300)
    assert points(losses(calm), since=0, generation=0)["spikes"] == []
    rising = [*calm[:150], 4.0, *calm[150:299], 3.0]
    assert points(losses(rising), since=0, generation=0)["spikes"] == [[151, 4.0], [300 + 1, 3.0]]


def test_later_answers_carry_the_spikes_among_their_own_steps_and_judge_them_by_those_before():
    rising = [*noisy(150), 4.0, *noisy(153)[150:]]
    whole = points(losses(rising), since=0, generation=0)["spikes"]
    assert points(losses(rising), since=149, generation=0)["spikes"] == whole == [[151, 4.0]]
    assert points(losses(rising), since=151, generation=0)["spikes"] == []
    assert points(losses([1.0, 9.0, 1.0]), since=0, generation=0)["spikes"] == [], "too few steps to tell"
