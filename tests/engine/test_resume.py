"""A run that was interrupted at any save equals the one that was not: bit for bit in its weights and its losses."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from studio.engine.best import STATE, best, log_of
from studio.engine.checkpoints import seal
from studio.engine.fast.trainer import documents_of
from studio.engine.methods import TUNINGS
from studio.events import Measured, Note, Step
from tests.engine.test_train import Run, spec

STEPS = 12


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


def hard(tiny, dataset, **sections):
    """A run with everything on that draws at random or keeps a state between steps, saved at each of its steps."""
    training = {"max_steps": STEPS, "save_steps": 1, "save_total_limit": 100, "weight_decay": 0.01}
    sections["training"] = training | sections.get("training", {})
    sections.setdefault("method", {"dropout": 0.1})
    sections.setdefault("stage", {"packing": True, "neftune_noise_alpha": 5})
    sections["evaluation"] = {"prompts": ["Hi"], "max_new_tokens": 2} | sections.get("evaluation", {})
    return spec(tiny(), dataset, model={"dtype": "fp32"}, **sections)


def resumed(whole, wanted, step):
    """What becomes of a copy of the whole run's checkpoint at a step. It saves at its end only, to be quick."""
    other = Run(whole.record.parent.with_name(f"from-{step}"))
    copy = other.checkpoints / f"checkpoint-{step}"
    shutil.copytree(whole.checkpoints / copy.name, copy)
    state = json.loads((copy / STATE).read_text())
    text = json.dumps(state | {"save_steps": 1000})
    (copy / STATE).write_text(text)
    seal(copy, step)
    shutil.copyfile(whole.record, other.record)
    assert other(wanted) == other.adapter
    return other


def weights(run):
    (found,) = run.adapter.glob("*.safetensors")
    return load_file(found)


def assert_equal_from(whole, wanted, steps):
    losses = {each.step: each.loss for each in whole.of(Step)}
    assert len(set(losses.values())) == len(losses)
    ours = weights(whole)
    for step in steps:
        other = resumed(whole, wanted, step)
        remaining = {at: loss for at, loss in losses.items() if at > step}
        assert {each.step: each.loss for each in other.of(Step)} == remaining, f"after a resume at step {step}"
        theirs = weights(other)
        for name, tensor in ours.items():
            assert torch.equal(tensor, theirs[name]), f"{name} after a resume at step {step}"


def test_lora_resumes_exactly(tiny, dataset, run):
    wanted = hard(tiny, dataset)
    assert run(wanted) == run.adapter
    assert_equal_from(run, wanted, (1, 5, 12))


@pytest.mark.skipif("full" not in TUNINGS, reason="full fine-tuning is not there")
def test_full_fine_tuning_resumes_exactly(tiny, dataset, run):
    wanted = hard(tiny, dataset, method={"kind": "full"}, training={"learning_rate": 1e-4})
    assert run(wanted) == run.adapter
    assert_equal_from(run, wanted, (4, 9))


@pytest.mark.slow
@pytest.mark.parametrize("stage", [{"packing": True, "neftune_noise_alpha": 5}, {"packing": False}])
@pytest.mark.parametrize(
    ("method", "quantisation"),
    [({"dropout": 0.1}, "none"), ({"dropout": 0.1}, "nf4"), ({"kind": "full"}, "none")],
    ids=["lora", "qlora", "full"],
)
def test_a_run_resumes_exactly_at_every_save_point(tiny, dataset, run, method, quantisation, stage):
    if method.get("kind", "lora") not in TUNINGS:
        pytest.skip("full fine-tuning is not there")
    rate = 1e-4 if "kind" in method else 1e-2
    sections = {"method": method, "stage": stage, "quantization": {"kind": quantisation}}
    wanted = hard(tiny, dataset, training={"learning_rate": rate}, **sections)
    assert run(wanted) == run.adapter
    assert_equal_from(run, wanted, range(1, STEPS + 1))


def test_validation_at_the_end_of_each_epoch_leaves_resuming_exact(tiny, dataset, run):
    wanted = hard(tiny, dataset, stage={}, data={"validation_share": 0.25}, training={"accumulation": 3})
    run(wanted)
    measured = {each.step: each.scores["loss"] for each in run.of(Measured)}
    assert list(measured) == [3, 6, 9, 12], "18 rows are 3 steps of 6"
    assert_equal_from(run, wanted, (5, 6))
    other = Run(run.record.parent.with_name("another"))
    shutil.copytree(run.checkpoints / "checkpoint-6", other.checkpoints / "checkpoint-6")
    other(wanted)
    assert {each.step: each.scores["loss"] for each in other.of(Measured)} == {9: measured[9], 12: measured[12]}


@pytest.fixture
def overfitting(tiny, dataset):
    """Its validation loss falls and soon rises again."""
    return hard(
        tiny,
        dataset,
        stage={},
        method={"rank": 32},
        data={"validation_share": 0.25},
        evaluation={"prompts": [], "steps": 1},
        training={
            "max_steps": 60,
            "learning_rate": 0.1,
            "early_stopping": 3,
            "keep_best": True,
            "save_steps": 4,
            "save_total_limit": 1,
        },
    )


def test_a_run_that_gets_no_better_ends_early_with_its_best_weights(overfitting, run):
    assert run(overfitting) == run.adapter
    measured = {each.step: each.scores["loss"] for each in run.of(Measured)}
    top = min(measured, key=measured.get)
    assert max(measured) == top + 3 < 60 and top % 4, "the best lies between two saves"
    told = [note.text for note in run.of(Note)]
    assert told[-2:] == [
        f"Ended early: nothing got better than validation loss {measured[top]:.4g} at step {top}.",
        f"The outcome is the checkpoint with the best validation loss {measured[top]:.4g} at step {top}.",
    ]
    assert {path.name for path in run.checkpoints.glob("checkpoint-*")} == {
        f"checkpoint-{top}",
        f"checkpoint-{top + 3}",
    }
    kept = load_file(run.checkpoints / f"checkpoint-{top}" / "adapter_model.safetensors")
    outcome = weights(run)
    assert all(torch.equal(tensor, outcome[name]) for name, tensor in kept.items())
    assert best(log_of(run.checkpoints / f"checkpoint-{top + 3}")).step == top


def test_a_run_that_had_ended_early_when_it_was_killed_trains_no_further(overfitting, run):
    run(overfitting)
    outcome = weights(run)
    shutil.rmtree(run.adapter)
    assert run(overfitting) == run.adapter
    assert run.of(Step) == []
    assert all(torch.equal(tensor, weights(run)[name]) for name, tensor in outcome.items())


def test_what_was_the_best_before_an_interruption_is_the_best_after_it(overfitting, run, tmp_path):
    run(overfitting)
    last = max(step.step for step in run.of(Step))
    halved = Run(tmp_path / "halved")
    assert halved(overfitting, stop_at=last - 1) is None
    assert halved(overfitting) == halved.adapter
    assert [step.step for step in halved.of(Step)] == [last]
    assert all(torch.equal(tensor, weights(halved)[name]) for name, tensor in weights(run).items())


def test_rows_of_one_pack_do_not_see_each_other(tiny, dataset, run, monkeypatch):
    """Another row in the same sequence leaves a row's losses as they are."""
    made = []
    monkeypatch.setattr("studio.engine.train._trained", lambda trainer, *_: made.append(trainer))
    run(spec(tiny(), dataset, model={"dtype": "fp32"}, stage={"packing": True}, evaluation={"prompts": []}))
    (trainer,) = made
    row = trainer.train_dataset[0]
    lengths = row["seq_lengths"]
    assert len(lengths) > 1, "several rows in one sequence"
    changed = {**row, "input_ids": [7] * lengths[0] + list(row["input_ids"][lengths[0] :])}
    whole, other = _losses(trainer, row), _losses(trainer, changed)
    alone = _losses(trainer, _cut(row, lengths[0], lengths[0] + lengths[1]))
    torch.testing.assert_close(whole[1:], other[1:])
    assert not torch.allclose(whole[0], other[0])
    torch.testing.assert_close(whole[1], alone[0])


def _cut(row, start, end):
    return {name: row[name][start:end] for name in ("input_ids", "labels")} | {"seq_lengths": [end - start]}


def _losses(trainer, row):
    """Of the learned tokens of each document in a packed row."""
    batch = trainer.path.passed(documents_of(trainer.data_collator([row])), torch.device("cpu"))
    trainer.model.eval()
    with torch.no_grad(), trainer.path.within(batch):
        return list(trainer.path.run(batch).each.split(batch.counts))
