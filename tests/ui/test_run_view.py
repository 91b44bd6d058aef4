from dataclasses import replace

import pytest

from studio.events import Ended, Phase
from studio.hardware import Hardware, choices
from studio.jobs.monitor import LIVE, JobView, fold
from studio.specs import TrainSpec
from studio.ui import run_view
from studio.ui.texts import table
from tests.ui.recorded import HOSTILE, recorded


def view_of_run(**changes):
    view = fold(JobView("a-run", "train", "a", 0.0), recorded(40))
    return replace(view, **{"state": "running", "ended": None, **changes})


def test_figures_carry_their_units():
    figures = run_view.figures(view_of_run(), "en")
    assert figures["step"] == "40 / 40"
    assert figures["speed"] == "240 tokens/s"
    assert figures["memory"] == "2.8 GiB"
    assert figures["left"] == "0 s"


def test_the_best_validation_is_shown_with_its_step():
    assert run_view.figures(view_of_run(), "en")["best"].endswith(" at step 40")
    assert run_view.figures(view_of_run(), "zh")["best"].endswith("（第 40 步）")


def test_samples_of_several_steps_can_be_chosen_by_step():
    shown = run_view.samples(view_of_run(), "en")
    assert shown.count("<option") == 1 + 4
    assert shown.count("<tr data-step=") == 4
    once = view_of_run()
    assert "<select" not in run_view.samples(replace(once, samples=once.samples[:1]), "en")


def test_what_is_not_known_is_a_dash():
    assert set(run_view.figures(JobView("a", "train", "a", 0.0), "en").values()) == {"0", run_view.NOTHING}


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59, "59 s"), (60, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations_read_easily(seconds, said):
    assert run_view.duration(seconds, "en") == said


def test_text_from_data_never_becomes_markup():
    view = view_of_run(state="failed", ended=Ended(state="failed", message=HOSTILE))
    shown = run_view.status(view, "en") + run_view.samples(view, "en") + run_view.notes(view, "en")
    assert shown.count("&lt;img src=x") == 1 + 4 + 1
    assert "<img" not in shown


def test_samples_of_a_prompt_stand_together_in_the_order_of_steps():
    shown = run_view.samples(view_of_run(), "en")
    assert shown.count("<caption>") == 1
    assert shown.index("Answer 10") < shown.index("Answer 20") < shown.index("Answer 40")


def test_a_phase_before_the_first_step_moves_the_bar():
    view = JobView("a", "train", "a", 0.0, state="running", phase=Phase(name="tokenize", done=5, total=20, unit="rows"))
    shown = run_view.status(view, "en")
    assert "max='20' value='5'" in shown
    assert "5 / 20 rows" in shown


@pytest.mark.parametrize("state", [*sorted(LIVE), "finished", "stopped", "failed", "interrupted"])
def test_every_state_has_a_word_in_both_languages(state):
    assert table("en")[f"train.state.{state}"] and table("zh")[f"train.state.{state}"]


@pytest.mark.parametrize(
    "hardware",
    [
        Hardware(2, 8),
        Hardware(2, 8, bf16=True),
        Hardware(2, 8, bf16=True, bf16_gain=0.5),
        Hardware(8, 64, "T4", 15),
        Hardware(8, 64, "H200", 140, bf16=True),
    ],
)
def test_every_reason_for_an_automatic_choice_is_said_in_both_languages(hardware):
    for choice in choices(TrainSpec(), hardware).values():
        assert f"train.why.{choice.why}" in table("en")
        assert f"train.why.{choice.why}" in table("zh")


def test_choices_with_the_same_reason_are_told_once():
    shown = run_view.machine(Hardware(2, 8, bf16=True), choices(TrainSpec(), Hardware(2, 8, bf16=True)), "en")
    assert "Precision of the base, Precision: <b>bf16</b>" in shown
