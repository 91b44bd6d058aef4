"""A whole run on a tiny model: trains, saves, stops, resumes, and reloads as it was."""

import json
import math

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from studio.data import registry
from studio.engine import callbacks
from studio.engine.callbacks import sample_steps
from studio.engine.checkpoints import MANIFEST, complete_checkpoints, seal
from studio.engine.train import train
from studio.errors import DataError, SpecError, StudioError
from studio.events import Measured, Note, Plan, Sample, Saved, Step
from studio.specs import TrainSpec, parse


def spec(folder, dataset, **sections):
    values = {
        "model": {"name": str(folder)},
        "quantization": {"kind": "none"},
        "data": {"datasets": [dataset], "max_length": 64},
        "method": {"rank": 4},
        "training": {"max_steps": 6, "batch_size": 2, "accumulation": 2, "learning_rate": 1e-2, "save_steps": 2},
        "evaluation": {"prompts": ["What is 1 plus 1?"], "max_new_tokens": 4},
    }
    for name, changes in sections.items():
        values[name] = changes if "kind" in changes else values.get(name, {}) | changes
    return parse(TrainSpec, values)


class Run:
    """A run in a folder of its own, with everything it told."""

    def __init__(self, place):
        self.checkpoints, self.adapter, self.record = place / "checkpoints", place / "adapter", place / "record.json"
        place.mkdir()
        self.told = []

    def __call__(self, spec, stop_at=None, **options):
        """stop_at: ask for a stop at the end of this step. options: of train."""
        self.told = []
        return train(
            spec,
            checkpoints=self.checkpoints,
            adapter=self.adapter,
            record=self.record,
            emit=self.told.append,
            stopping=lambda: stop_at is not None and any(each.step >= stop_at - 1 for each in self.of(Step)),
            **options,
        )

    def of(self, kind):
        return [event for event in self.told if isinstance(event, kind)]

    def weights(self):
        return load_file(self.adapter / "adapter_model.safetensors")


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


def test_a_run_tells_its_plan_its_steps_and_its_checkpoints(tiny, dataset, run):
    assert run(spec(tiny(), dataset, data={"validation_share": 0.25})) == run.adapter
    (plan,) = run.of(Plan)
    assert plan.total_steps == 6 and plan.rows == 18 and plan.validation_rows == 6 and plan.effective_batch_size == 4
    steps = run.of(Step)
    assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[-1].loss < steps[0].loss and all(step.tokens_per_s > 0 for step in steps)
    assert [saved.step for saved in run.of(Saved)] == [2, 4, 6]
    assert {sample.step for sample in run.of(Sample)} >= {0, 6}
    assert all(math.isclose(m.scores["perplexity"], math.exp(m.scores["loss"])) for m in run.of(Measured))
    assert json.loads(run.record.read_text())["data"] == plan.data


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_the_plan_counts_what_peft_counts(tiny, dataset, run, kind):
    run(spec(tiny(kind), dataset, training={"max_steps": 1, "accumulation": 1}))
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny(kind)), run.adapter, is_trainable=True)
    trainable, total = model.get_nb_trainable_parameters()
    (plan,) = run.of(Plan)
    assert (plan.trainable_parameters, plan.total_parameters) == (trainable, total)


def test_steps_follow_from_epochs_as_the_trainer_counts_them(tiny, dataset, run):
    run(spec(tiny(), dataset, training={"max_steps": None, "epochs": 1.5, "batch_size": 5, "accumulation": 2}))
    (plan,) = run.of(Plan)
    assert plan.total_steps == len(run.of(Step)) == math.ceil(1.5 * math.ceil(math.ceil(24 / 5) / 2))


def test_a_stopped_run_saves_and_its_resume_equals_the_uninterrupted_one_bit_for_bit(tiny, dataset, tmp_path):
    wanted = spec(tiny(), dataset, method={"dropout": 0.1}, training={"save_steps": 100})
    whole, halved = Run(tmp_path / "whole"), Run(tmp_path / "halved")
    whole(wanted)
    assert halved(wanted, stop_at=3) is None
    assert [step for step, _ in complete_checkpoints(halved.checkpoints)] == [3] and not halved.adapter.exists()
    losses = [step.loss for step in halved.of(Step)]
    assert halved(wanted) == halved.adapter
    assert any("step 3" in note.text for note in halved.of(Note))
    losses += [step.loss for step in halved.of(Step)]
    assert losses == [step.loss for step in whole.of(Step)]
    for name, tensor in whole.weights().items():
        assert torch.equal(tensor, halved.weights()[name]), name


def test_half_a_checkpoint_is_not_resumed_from(tiny, dataset, run):
    wanted = spec(tiny(), dataset)
    run(wanted, stop_at=4)
    (run.checkpoints / "checkpoint-4" / "optimizer.pt").write_bytes(b"half")
    (run.checkpoints / "checkpoint-9").mkdir()
    run(wanted)
    assert run.of(Step)[0].step == 3, "the newest whole checkpoint is that of step 2"


def test_only_the_newest_checkpoints_are_kept_by_step(tiny, dataset, run):
    run(spec(tiny(), dataset, training={"save_steps": 1, "save_total_limit": 2}))
    assert [step for step, _ in complete_checkpoints(run.checkpoints)] == [5, 6]


@pytest.mark.parametrize("kind", ["nf4", "fp4", "int8"])
def test_a_run_on_a_quantised_base_trains_saves_and_reloads(tiny, dataset, run, kind):
    run(spec(tiny(), dataset, quantization={"kind": kind, "double": True}, training={"max_steps": 8}))
    losses = [step.loss for step in run.of(Step)]
    assert losses[-1] < losses[0]
    weights = run.weights()
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in weights.values())
    assert any(tensor.abs().max() > 0 for name, tensor in weights.items() if "lora_B" in name)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny()), run.adapter).eval()
    ids = torch.tensor([[5, 6, 7]])
    with model.disable_adapter():
        base = model(ids).logits
    assert (model(ids).logits - base).abs().max() > 1e-3


def test_sample_answers_and_validation_change_nothing_in_a_quantised_run(tiny, dataset, tmp_path):
    """bitsandbytes repacks 4-bit weights at the first look in eval mode, and then no gradient passes through them."""
    plain, watched = Run(tmp_path / "plain"), Run(tmp_path / "watched")
    shared = {"quantization": {"kind": "nf4"}, "data": {"validation_share": 0.25}}
    plain(spec(tiny(), dataset, evaluation={"prompts": []}, **shared))
    watched(spec(tiny(), dataset, evaluation={"prompts": ["Hi"], "steps": 1, "sample_steps": 1}, **shared))
    assert [step.grad_norm for step in plain.of(Step)] == [step.grad_norm for step in watched.of(Step)]
    for name, tensor in plain.weights().items():
        assert torch.equal(tensor, watched.weights()[name]), name


def test_a_step_is_told_before_the_answers_at_it_and_those_of_step_0_are_the_untrained_model_s(
    tiny, dataset, tmp_path, monkeypatch
):
    after, before = Run(tmp_path / "after"), Run(tmp_path / "before")
    training = {"max_steps": 2, "learning_rate": 1.0, "scheduler": "constant", "warmup": 0}
    evaluation = {"sample_steps": 1, "max_new_tokens": 8}
    asked = spec(tiny(), dataset, method={"rank": 1}, training=training, evaluation=evaluation)
    after(asked)
    monkeypatch.setattr(callbacks, "MOST_HELD_TWICE", 0.0)
    before(asked)
    order = [(type(event), event.step) for event in after.told if isinstance(event, Step | Sample)]
    assert order == [(Step, 1), (Sample, 0), (Sample, 1), (Step, 2), (Sample, 2)]
    answers = [{each.step: each.answer for each in run.of(Sample)} for run in (after, before)]
    assert answers[0] == answers[1] and answers[0][0] != answers[0][1]
    assert [step.loss for step in after.of(Step)] == [step.loss for step in before.of(Step)]
    assert all(torch.equal(tensor, before.weights()[name]) for name, tensor in after.weights().items())


def test_packing_takes_fewer_steps_over_the_same_tokens(tiny, dataset, run, tmp_path):
    other = Run(tmp_path / "packed")
    plain = {"max_steps": None, "epochs": 1, "batch_size": 1, "accumulation": 1}
    run(spec(tiny(), dataset, training=plain))
    other(spec(tiny(), dataset, training=plain, stage={"packing": True}, data={"max_length": 256}))
    assert len(other.of(Step)) < len(run.of(Step)) / 3


def test_f18_rows_without_a_supervised_token_are_refused_before_loading(tiny, dataset, run):
    with pytest.raises(DataError, match=r"data\.max_length = 8"):
        run(spec(tiny(), dataset, data={"max_length": 8}))


def test_f51_a_cutoff_beyond_the_positions_names_the_models_number(tiny, dataset, run):
    with pytest.raises(SpecError, match="512 positions"):
        run(spec(tiny(), dataset, data={"max_length": 513}))


def test_f52_fp16_without_a_gpu_names_what_works(tiny, dataset, run):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SpecError, match=r"training\.precision: fp16 needs a GPU"):
        run(spec(tiny(), dataset, training={"precision": "fp16"}))


def test_f66_a_loss_that_is_no_number_stops_the_run_and_is_never_shown_as_zero(tiny, dataset, run, tmp_path):
    from tests.engine.conftest import make

    broken = make("llama", tmp_path / "broken")
    model = AutoModelForCausalLM.from_pretrained(broken)
    with torch.no_grad():
        model.model.embed_tokens.weight.fill_(float("nan"))
    model.save_pretrained(broken)
    with pytest.raises(StudioError, match="learning_rate"):
        run(spec(broken, dataset))
    assert run.of(Step) == []


def test_sample_steps_are_spread_over_the_run():
    assert sample_steps(100, None) == {20, 40, 60, 80, 100}
    assert sample_steps(3, None) == {1, 2, 3}
    assert sample_steps(10, 4) == {4, 8}


def test_a_checkpoint_whose_file_shrank_is_not_whole(tmp_path):
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    (folder / "weights").write_bytes(b"12345")
    assert complete_checkpoints(tmp_path) == []
    seal(folder, 5)
    assert complete_checkpoints(tmp_path) == [(5, folder)] and (folder / MANIFEST).exists()
    (folder / "weights").write_bytes(b"1234")
    assert complete_checkpoints(tmp_path) == []


def test_without_shuffling_the_seed_of_the_data_changes_nothing(tiny, dataset, tmp_path):
    def losses(name, **data):
        run = Run(tmp_path / name)
        run(spec(tiny(), dataset, data=data, evaluation={"prompts": []}, training={"max_steps": 3}))
        return [step.loss for step in run.of(Step)]

    in_order = [losses(f"order-{seed}", shuffle=False, seed=seed) for seed in (1, 2)]
    shuffled = [losses(f"shuffled-{seed}", seed=seed) for seed in (1, 2)]
    assert in_order[0] == in_order[1] and shuffled[0] != shuffled[1] and in_order[0] not in shuffled


def test_the_record_tells_what_became_of_each_datasets_rows(tiny, dataset, run, tmp_path):
    rows = [
        {"prompt": "What is <|im_end|>?", "completion": "A token.", "label": True},
        {"prompt": "Who?", "completion": "Nobody.", "label": False},
        {"prompt": "How?", "label": True},
    ]
    path = tmp_path / "thumbs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    registry.add(path, "thumbs", format="kto")
    data = {"datasets": [dataset, "thumbs"], "weights": [2, 1], "repeat": True, "skip_faulty": True}
    run(spec(tiny(), dataset, data=data, training={"max_steps": 1}))
    counts = json.loads(run.record.read_text())["counts"]
    assert counts == run.of(Plan)[0].counts
    assert (counts[dataset]["rows"], counts[dataset]["trained"], counts[dataset]["mixed"]) == (24, 24, 24)
    thumbs = counts["thumbs"]
    assert [thumbs[what] for what in ("rows", "faulty", "unlearned", "escaped", "trained", "mixed")] == [
        3,
        1,
        1,
        1,
        1,
        12,
    ]
    told = "\n".join(note.text for note in run.of(Note))
    assert "1 of 2 rows of 'thumbs' are marked bad" in told and "1 rows hold special tokens" in told
    assert f"The mix has 36 rows: 24 of {dataset}, 12 of thumbs." in told
    assert not (run.record.parent / ".rows").exists()


@pytest.mark.parametrize(("stage", "lost"), [("pretrain", "their end"), ("sft", "the end of their answer")])
def test_what_long_rows_lose_is_told_as_the_stage_sees_them(tiny, studio_home, run, tmp_path, stage, lost):
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"prompt": "Go on.", "completion": "word " * 90}))
    name = registry.add(path, "long").name
    run(spec(tiny(), name, stage={"kind": stage}, training={"max_steps": 1}))
    assert f"1 rows are longer than 64 tokens and lose {lost}." in [note.text for note in run.of(Note)]


def test_f25_a_run_does_not_go_on_with_other_rows_than_it_began_with(tiny, dataset, run, tmp_path):
    run(spec(tiny(), dataset), stop_at=3)
    registry.remove(dataset)
    (tmp_path / "other.json").write_text(json.dumps([{"instruction": f"{n}?", "output": f"{n}."} for n in range(9)]))
    registry.add(tmp_path / "other.json", dataset)
    with pytest.raises(DataError, match="'sums' has other rows by now"):
        run(spec(tiny(), dataset))
