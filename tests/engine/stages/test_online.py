"""GRPO and RLOO on a tiny model: prompts are ours, rewards rise, the outcome is one plain adapter."""

import json

import pytest
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from studio.data import registry
from studio.data.example import Message
from studio.engine.models.load import load_tokenizer
from studio.engine.train import train
from studio.errors import DataError, SpecError
from studio.events import Measured, Note, Plan, Step
from studio.specs import TrainSpec, parse
from studio.templates import generation_prompt

REWARD = """
import json
SEEN = {path!r}

def reward(prompts, completions, reference, **more):
    with open(SEEN, "a") as file:
        rows = zip(prompts, completions, reference, more["prompt_ids"], more["conversation"])
        file.writelines(json.dumps(row) + "\\n" for row in rows)
    return [sum(token < 3200 for token in ids) / len(ids) for ids in more["completion_ids"]]
"""


def spec(folder, dataset, kind, **sections):
    values = {
        "model": {"name": str(folder), "dtype": "fp32"},
        "quantization": {"kind": "none"},
        "data": {"datasets": [dataset], "max_length": 64},
        "method": {"rank": 8},
        "stage": {"kind": kind, "rewards": ["file"], "generations": 8, "max_completion_length": 8},
        "training": {"max_steps": 16, "batch_size": 4, "accumulation": 1, "learning_rate": 2e-2, "precision": "fp32"}
        | {"scheduler": "constant", "warmup": 0},
        "evaluation": {"prompts": []},
    }
    for name, changes in sections.items():
        values[name] = changes if "kind" in changes else values.get(name, {}) | changes
    return parse(TrainSpec, values)


def trained(place, spec, code, stop_after=None):
    """stop_after: ask for a stop at the end of this step."""
    place.mkdir(exist_ok=True)
    told = []
    adapter = train(
        spec,
        checkpoints=place / "checkpoints",
        adapter=place / "adapter",
        record=place / "record.json",
        emit=told.append,
        stopping=lambda: any(event.step + 1 == stop_after for event in told if isinstance(event, Step)),
        code=code,
    )
    return adapter, told


def of_examination(told):
    """The scores of the rows held out by step."""
    return {each.step: each.scores for each in told if isinstance(each, Measured) and each.subject == "validation"}


@pytest.fixture
def code(tmp_path):
    path = tmp_path / "rewards.py"
    path.write_text(REWARD.format(path=str(tmp_path / "seen.jsonl")))
    return path


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_answers_that_are_rewarded_become_likelier(tiny, dataset, tmp_path, code, kind):
    # all of the model trains, because a random one says everything alike whatever its last layers hold
    whole = {"method": {"kind": "full"}, "training": {"learning_rate": 0.1, "max_steps": 16, "scheduler": "linear"}}
    held = {"data": {"validation_share": 0.34}, "stage": {"beta": 0.0}}
    _, told = trained(tmp_path / "run", spec(tiny(), dataset, kind, **whole, **held), code)
    rewards = [event.figures["reward"] for event in told if isinstance(event, Step)]
    assert len(rewards) == 16 and sum(rewards[-3:]) > sum(rewards[:3]) + 0.5
    examined = json.loads((tmp_path / "run" / "record.json").read_text())["examined"]
    before, after = (examined[when]["validation"] for when in ("before", "after"))
    assert of_examination(told) == {0: before, 16: after} and before["rows"] == 8
    assert after["reward"] > before["reward"] + 0.15
    gain = f"Mean reward before → after: validation {before['reward']:.3f} → {after['reward']:.3f}."
    assert gain in [event.text for event in told if isinstance(event, Note)]


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_a_stopped_run_goes_on_and_is_examined_as_if_nothing_had_been(tiny, dataset, tmp_path, code, kind):
    own = {"method": {"dropout": 0.1}, "training": {"max_steps": 4}, "data": {"validation_share": 0.34}}
    wanted = spec(tiny(), dataset, kind, **own, evaluation={"steps": 3})
    _, whole = trained(tmp_path / "whole", wanted, code)
    adapter, first = trained(tmp_path / "halved", wanted, code, stop_after=2)
    assert adapter is None
    _, rest = trained(tmp_path / "halved", wanted, code)
    steps = {event.step: (event.loss, event.figures["reward"]) for event in [*first, *rest] if isinstance(event, Step)}
    assert steps == {event.step: (event.loss, event.figures["reward"]) for event in whole if isinstance(event, Step)}
    assert list(of_examination(first)) == [0] and list(of_examination(rest)) == [4]
    examined = [json.loads((tmp_path / name / "record.json").read_text())["examined"] for name in ("whole", "halved")]
    assert examined[0] == examined[1]


def test_prompts_are_those_of_chat_and_the_outcome_is_the_adapter_alone(tiny, dataset, tmp_path, code):
    folder = tiny()
    held = {"stage": {"beta": 0.1}, "training": {"max_steps": 2, "save_steps": 1}}
    adapter, _ = trained(tmp_path / "run", spec(folder, dataset, "rloo", **held), code)
    seen = [json.loads(line) for line in (tmp_path / "seen.jsonl").read_text().splitlines()]
    assert len(seen) == 2 * 4 * 8
    text_tokenizer = load_tokenizer(folder)[1]
    for _, _, reference, ids, conversation in seen:
        turns = [Message(turn["role"], turn["content"]) for turn in json.loads(conversation)]
        assert ids == generation_prompt(turns, text_tokenizer.own_template, text_tokenizer)
        assert reference in {f"{a} plus {b} is {a + b}." for a in range(1, 7) for b in range(1, 5)}
    # without the copy that served as a reference
    assert not list((tmp_path / "run").rglob("ref"))
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), adapter)
    stored = load_file(adapter / "adapter_model.safetensors")
    assert len(stored) == sum(".default." in name for name, _ in model.named_parameters())


def test_the_plan_counts_prompts(tiny, dataset, tmp_path, code):
    short = {"epochs": 1.0, "max_steps": None, "accumulation": 2, "batch_size": 3}
    _, told = trained(tmp_path / "run", spec(tiny(), dataset, "grpo", training=short), code)
    (plan,) = [event for event in told if isinstance(event, Plan)]
    steps = [event for event in told if isinstance(event, Step)]
    assert (plan.rows, plan.effective_batch_size, plan.total_steps) == (24, 6, 4) and len(steps) == 4


def test_prompts_beyond_the_cutoff_are_left_out_and_told_if_none_is_left(tiny, dataset, tmp_path, code):
    with pytest.raises(DataError, match=r"data\.max_length = 8"):
        trained(tmp_path / "run", spec(tiny(), dataset, "grpo", data={"max_length": 8}), code)


def test_plain_text_has_no_prompt(tiny, studio_home, tmp_path, code):
    path = tmp_path / "plain.txt"
    path.write_text("one line\nand another\n")
    name = registry.add(path, "plain").name
    with pytest.raises(DataError, match="are plain text without a prompt"):
        trained(tmp_path / "run", spec(tiny(), name, "grpo"), code)


def test_rewards_that_do_not_fit_together_are_refused_at_once():
    wrong = {"kind": "grpo", "rewards": ["model", "exact_match"], "reward_weights": [1.0]}
    with pytest.raises(SpecError) as caught:
        parse(TrainSpec, {"stage": wrong})
    assert {fault.field for fault in caught.value.faults} == {"stage.reward_weights", "stage.reward_model"}
