"""DPO, ORPO, SimPO and KTO on a tiny model: margins grow, figures are told, the outcome is one plain adapter."""

import json
import math

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from studio.errors import SpecError
from studio.events import Measured, Phase, Step
from tests.engine.stages.conftest import preferring, trained

KINDS = ["dpo", "orpo", "cpo", "kto"]
IDS = torch.tensor([[5, 6, 7, 8]])


def margins(run):
    record = json.loads((run.place / "record.json").read_text())["examined"]
    return [record[when]["validation"]["rewards/margins"] for when in ("before", "after")]


@pytest.mark.parametrize("kind", KINDS)
def test_margins_grow_on_pairs_held_out_and_the_outcome_is_a_plain_adapter(kind, tiny, pairs, tmp_path):
    run = trained(tmp_path / "run", preferring(tiny(), kind))
    before, after = margins(run)
    assert after > before + 0.01
    steps = run.of(Step)
    assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6] and steps[-1].loss < steps[0].loss
    assert {"rewards/chosen", "logps/chosen"} <= set(steps[0].figures)
    assert all(math.isfinite(value) for step in steps for value in step.figures.values())
    assert all(step.tokens_per_s > 0 for step in steps)
    last = run.of(Measured)[-1].scores
    assert last["rewards/margins"] == pytest.approx(after) and "perplexity" not in last
    folders = [run.adapter, run.place / "checkpoints" / "checkpoint-6"]
    assert not [path for folder in folders for path in folder.iterdir() if path.is_dir()], "a reference was saved too"
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny()), run.adapter).eval()
    changed = model(IDS).logits
    with model.disable_adapter():
        assert (model(IDS).logits - changed).abs().max() > 1e-3
    assert list(model.peft_config) == ["default"]


@pytest.mark.parametrize(
    "method",
    [{"kind": "lora", "rank": 4}, {"kind": "full"}, pytest.param({"kind": "prompt_tuning"}, marks=pytest.mark.slow)],
)
def test_the_reference_is_the_model_as_it_began_whatever_trains(method, tiny, pairs, tmp_path):
    run = trained(tmp_path / "run", preferring(tiny(), "dpo", method=method, training={"max_steps": 3}))
    first = run.of(Step)[0]
    assert first.loss == pytest.approx(math.log(2), abs=1e-5)
    assert first.figures["rewards/margins"] == pytest.approx(0, abs=1e-4)
    before, after = margins(run)
    assert before == pytest.approx(0, abs=1e-4) and after > 1e-4
    computed = any(phase.name == "reference" for phase in run.of(Phase))
    assert computed == (method["kind"] != "lora"), "a fresh adapter that is switched off is the reference for nothing"


def test_a_run_that_goes_on_from_an_adapter_prefers_against_that_one(tiny, pairs, tmp_path):
    earlier = trained(tmp_path / "earlier", preferring(tiny(), "orpo", training={"max_steps": 3}))
    spec = preferring(tiny(), "dpo", training={"max_steps": 2}, start={"adapters": [str(earlier.adapter)]})
    run = trained(tmp_path / "run", spec, starts=[earlier.adapter])
    assert run.of(Step)[0].loss == pytest.approx(math.log(2), abs=1e-5)
    assert any(phase.name == "reference" for phase in run.of(Phase))


@pytest.mark.parametrize("kind", ["dpo", pytest.param("kto", marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_as_if_nothing_had_been(kind, tiny, pairs, tmp_path):
    spec = preferring(tiny(), kind, method={"rank": 4, "dropout": 0.1})
    whole = trained(tmp_path / "whole", spec)
    halves = trained(tmp_path / "halved", spec, stop_after=3), trained(tmp_path / "halved", spec)
    losses = [step.loss for half in halves for step in half.of(Step)]
    assert losses == [step.loss for step in whole.of(Step)]


@pytest.mark.slow
def test_accumulated_pairs_weigh_as_much_as_those_of_one_batch(tiny, pairs, tmp_path):
    def first(name, batch, accumulation):
        data = {"datasets": ["pairs"], "max_length": 64, "shuffle": False}
        training = {"max_steps": 1, "batch_size": batch, "accumulation": accumulation, "max_grad_norm": 1e6}
        return trained(tmp_path / name, preferring(tiny(), "cpo", data=data, training=training)).of(Step)[0]

    one, four = first("one", 8, 1), first("four", 2, 4)
    assert four.loss == pytest.approx(one.loss, rel=1e-3)
    assert four.grad_norm == pytest.approx(one.grad_norm, rel=1e-2)


@pytest.mark.parametrize(
    ("kind", "sections", "field"),
    [
        ("dpo", {"stage": {"kind": "dpo", "loss": ["ipo", "sft"], "loss_weights": [1.0]}}, "stage.loss_weights"),
        ("dpo", {"stage": {"kind": "dpo", "loss": ["exo_pair"]}}, "stage.label_smoothing"),
        ("dpo", {"stage": {"kind": "dpo", "beta": 0}}, "stage.beta"),
        ("dpo", {"method": {"kind": "adaption_prompt"}}, "method.kind"),
        ("cpo", {"method": {"kind": "p_tuning"}}, "method.kind"),
        ("kto", {"training": {"batch_size": 1}}, "training.batch_size"),
        ("reward", {"method": {"kind": "prompt_tuning"}}, "method.kind"),
    ],
)
def test_what_a_stage_cannot_do_is_refused_before_anything_loads(kind, sections, field):
    with pytest.raises(SpecError) as error:
        preferring("nowhere", kind, **sections)
    assert [fault.field for fault in error.value.faults] == [field]
