"""Base and adapter measured on the same rows."""

import json
import math

import pytest

from studio.engine.evaluation.answers import evaluate
from studio.events import Measured, Note, Phase
from studio.specs import EvaluateSpec, FullMethod, PromptTuningMethod
from tests.engine.test_train import Run, spec


@pytest.fixture
def measure(tiny, dataset, tmp_path):
    def go(stopping=lambda: False, share=0.25, method=None, **values):
        run, told = Run(tmp_path / "run"), []
        wanted = spec(tiny(), dataset, data={"validation_share": share}, training={"learning_rate": 3e-2})
        wanted = wanted.model_copy(update={"method": method} if method else {})
        run(wanted)
        out = tmp_path / "predictions.jsonl"
        evaluate(
            EvaluateSpec(run="r", **values),
            trained=wanted,
            adapter=run.adapter,
            predictions=out,
            emit=told.append,
            stopping=stopping,
        )
        return [json.loads(line) for line in out.read_text().splitlines()], told, run

    return go


def last_scores(told):
    return {event.subject: event.scores for event in told if isinstance(event, Measured)}


def test_the_loss_on_held_out_rows_is_the_runs_own_validation_loss(measure):
    lines, told, run = measure(generate=False)
    scores = last_scores(told)
    (validated,) = [event.scores["loss"] for event in run.of(Measured)][-1:]
    assert scores["adapter"]["loss"] == pytest.approx(validated, rel=2e-2)
    assert scores["adapter"]["loss"] < scores["base"]["loss"]
    assert scores["adapter"]["perplexity"] == pytest.approx(math.exp(scores["adapter"]["loss"]))
    assert len(lines) == scores["base"]["rows"] == 6


@pytest.mark.parametrize("method", [FullMethod(), PromptTuningMethod(virtual_tokens=5)], ids=lambda method: method.kind)
def test_a_whole_model_and_a_soft_prompt_are_measured_beside_the_base(measure, method):
    lines, told, run = measure(method=method, max_new_tokens=4)
    scores = last_scores(told)
    (validated,) = [event.scores["loss"] for event in run.of(Measured)][-1:]
    assert scores["adapter"]["loss"] == pytest.approx(validated, rel=2e-2)
    assert scores["adapter"]["loss"] < scores["base"]["loss"]
    assert len(lines) == 6 and all(isinstance(line["adapter"]["answer"], str) for line in lines)


def test_each_row_has_prompt_reference_and_both_answers(measure):
    lines, _, _ = measure(max_new_tokens=5, max_samples=3, batch_size=2)
    assert len(lines) == 3
    for line in lines:
        assert line["prompt"].startswith("What is ") and " is " in line["reference"]
        assert isinstance(line["base"]["answer"], str) and isinstance(line["adapter"]["answer"], str)
    assert any(line["base"]["answer"] != line["adapter"]["answer"] for line in lines)


def test_measuring_on_training_rows_is_said(measure):
    _, told, _ = measure(share=0.0, generate=False, max_samples=4)
    assert any("training rows" in event.text for event in told if isinstance(event, Note))


def test_a_stop_keeps_the_rows_that_are_done(measure):
    asked = []

    def stopping():
        asked.append(1)
        return len(asked) > 1

    lines, told, _ = measure(stopping, generate=False, batch_size=2)
    assert len(lines) == 2
    assert [event.done for event in told if isinstance(event, Phase) and event.name == "evaluate"][-1] == 2
