"""A reward model on a tiny base: it tells pairs apart, reloads with plain PEFT, and is evaluated as it was trained."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from studio.engine.evaluation.answers import evaluate
from studio.engine.metrics.pairs import scores
from studio.engine.models.load import load_tokenizer
from studio.engine.rewards.judge import Judge, judged
from studio.events import Measured, Step
from studio.specs import EvaluateSpec
from tests.engine.stages.conftest import preferring, trained


def test_pairs_are_told_apart_and_an_evaluation_finds_what_plain_peft_finds(tiny, pairs, tmp_path):
    # two whole batches are held out, because trl's validation is the mean of the batches
    stage, data = {"kind": "reward", "center_rewards": 0.01}, {"validation_share": 8 / 24}
    spec = preferring(tiny(), "reward", stage=stage, data=data)
    run = trained(tmp_path / "run", spec)
    figures = [step.figures for step in run.of(Step)]
    assert figures[-1]["accuracy"] == 1 and figures[-1]["rewards/margins"] > figures[0]["rewards/margins"] + 0.1
    assert {"rewards/mean", "rewards/min", "rewards/max"} <= set(figures[0])
    assert json.loads((run.adapter / "studio.json").read_text())["labels"] == ["reward"]

    told = []
    found = evaluate(
        EvaluateSpec(run="run", batch_size=4),
        trained=spec,
        adapter=run.adapter,
        predictions=tmp_path / "predictions.jsonl",
        emit=told.append,
        stopping=lambda: False,
    )
    lines = [json.loads(line) for line in found.read_text().splitlines()]
    last = {each.subject: each.scores for each in told if isinstance(each, Measured)}
    assert last["adapter"]["accuracy"] == 1 and last["adapter"]["rows"] == len(lines) == 8
    after = run.of(Measured)[-1].scores
    assert last["adapter"]["rewards/margins"] == pytest.approx(after["rewards/margins"], rel=1e-3)
    record = json.loads((run.place / "record.json").read_text())["examined"]
    before = record["before"]["validation"]["rewards/margins"]
    assert last["base"]["rewards/margins"] == pytest.approx(before, abs=1e-5), "the untrained head is another one"

    turns = json.dumps([{"role": "user", "content": lines[0]["prompt"]}])
    said = [lines[0]["reference"], lines[0]["rejected"]]
    judge = judged(Judge(spec, run.adapter))
    of_judge = judge(completions=said, conversation=[turns, turns])
    assert of_judge == pytest.approx([lines[0]["adapter"]["chosen"], lines[0]["adapter"]["rejected"]], abs=1e-4)

    base = AutoModelForSequenceClassification.from_pretrained(tiny(), num_labels=1)
    model = PeftModel.from_pretrained(base, run.adapter).eval()
    tokenizer, text_tokenizer = load_tokenizer(tiny())
    text = f"<|im_start|>user\n{lines[0]['prompt']}<|im_end|>\n<|im_start|>assistant\n{lines[0]['reference']}<|im_end|>"
    model.config.pad_token_id = tokenizer.pad_token_id
    with torch.no_grad():
        score = model(torch.tensor([text_tokenizer.ids(text)])).logits[0, 0]
    assert float(score) == pytest.approx(lines[0]["adapter"]["chosen"], abs=1e-4)


def test_equal_scores_are_no_preference():
    assert scores([1.0, 2.0, 0.0], [0.0, 2.0, 3.0]) == {
        "accuracy": 1 / 3,
        "rewards/margins": pytest.approx(-2 / 3),
        "rows": 3.0,
    }
