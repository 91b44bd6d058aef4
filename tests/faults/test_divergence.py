"""Runs whose numbers stop being finite: no such step is taken, none is saved, and the run goes on more slowly."""

import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, TrainerCallback

from studio.engine import train as story
from studio.engine.checkpoints import complete_checkpoints, facts_of
from studio.errors import Diverged
from studio.events import Note, Step
from tests.engine.conftest import make
from tests.engine.test_train import Run, spec


class Poison(TrainerCallback):
    """What a run meets at a step: a gradient or a weight that is not finite."""

    def __init__(self, at, *, weight=False, value=math.nan):
        self.at, self.weight, self.value = at, weight, value

    def _spoil(self, tensor):
        tensor.view(-1)[0] = self.value

    def on_step_end(self, args, state, control, model=None, **_):
        if self.weight and state.global_step == self.at:
            self._spoil(next(each for each in model.parameters() if each.requires_grad).data)

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        if not self.weight and state.global_step + 1 == self.at:
            self._spoil(next(each for each in model.parameters() if each.grad is not None).grad)


@pytest.fixture
def poisoned(monkeypatch):
    """poisoned(Poison(…)): its callback comes before the studio's own."""

    def put(poison):
        stopper = story.Stopper

        class First(stopper):
            def on_pre_optimizer_step(self, *arguments, **more):
                poison.on_pre_optimizer_step(*arguments, **more)

            def on_step_end(self, *arguments, **more):
                poison.on_step_end(*arguments, **more)
                super().on_step_end(*arguments, **more)

        monkeypatch.setattr(story, "Stopper", First)

    return put


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


def wanted(tiny, dataset, **training):
    return spec(tiny(), dataset, model={"dtype": "fp32"}, evaluation={"prompts": []}, training=training)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_f66_a_step_with_a_gradient_that_is_no_number_is_not_taken(tiny, dataset, run, poisoned, value):
    poisoned(Poison(5, value=value))
    with pytest.raises(Diverged, match=r"gradient.*at step 5.*stands at its checkpoint of step 4.*--rate"):
        run(wanted(tiny, dataset))
    assert [step.step for step in run.of(Step)] == [1, 2, 3, 4] and all(step.loss > 0 for step in run.of(Step))
    assert [step for step, _ in complete_checkpoints(run.checkpoints)] == [2, 4] and not run.adapter.exists()


def test_f66_weights_that_are_no_numbers_are_not_saved(tiny, dataset, run, poisoned):
    poisoned(Poison(4, weight=True))
    with pytest.raises(Diverged, match=r"weight.*at step 4.*checkpoint of step 2"):
        run(wanted(tiny, dataset))
    assert [step for step, _ in complete_checkpoints(run.checkpoints)] == [2]


def test_f66_a_model_that_gives_no_numbers_ends_before_its_first_step(tmp_path, dataset, run):
    broken = make("llama", tmp_path / "broken")
    model = AutoModelForCausalLM.from_pretrained(broken)
    with torch.no_grad():
        model.model.embed_tokens.weight.fill_(math.nan)
    model.save_pretrained(broken)
    with pytest.raises(Diverged, match=r"at step 1.*No checkpoint"):
        run(spec(broken, dataset))
    assert run.of(Step) == []


def test_f66_the_run_goes_on_from_its_last_checkpoint_at_half_the_rate_and_keeps_that(tiny, dataset, run):
    constant = wanted(tiny, dataset, scheduler="constant", max_steps=8)
    whole = Run(run.record.parent.with_name("whole"))
    whole(constant)
    full = {step.step: step for step in whole.of(Step)}
    assert run(constant, stop_at=4) is None
    assert run(constant, stop_at=6, rate=0.5) is None
    halved = {step.step: step for step in run.of(Step)}
    assert halved.keys() == {5, 6} and halved[5].loss == full[5].loss, "the same rows and weights"
    assert halved[6].loss != full[6].loss
    assert [step.learning_rate for step in halved.values()] == pytest.approx([full[5].learning_rate / 2] * 2)
    assert any("0.5 times the learning rate" in note.text for note in run.of(Note))
    assert facts_of(run.checkpoints / "checkpoint-6")["rate"] == 0.5
    assert run(constant, rate=0.5) == run.adapter
    assert run.of(Step)[-1].learning_rate == pytest.approx(full[8].learning_rate / 2), "not halved again"


def test_f66_the_state_of_a_step_is_on_disk_as_numbers(tiny, dataset, run):
    run(wanted(tiny, dataset))
    log = json.loads((run.checkpoints / "checkpoint-6" / "trainer_state.json").read_text())["log_history"]
    assert all(math.isfinite(entry["loss"]) and entry["loss"] > 0 for entry in log if "loss" in entry)
