"""Soft prompts: how they start, train on padded batches, are kept in a checkpoint, and reload."""

import json
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from pydantic import TypeAdapter
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from studio.data import registry
from studio.engine.methods import tuning
from studio.engine.methods.soft_prompt import answer_as
from studio.engine.rows.conversations import TASKS, prepare
from studio.engine.stages.sft import _WithTasks
from studio.errors import SpecError
from studio.events import Sample, Step
from studio.specs import DataSpec, Method, TrainSpec
from studio.templates import TextTokenizer
from studio.templates import resolve as resolve_template
from tests.engine.methods.runs import IDS, logits, sums, train
from tests.engine.test_train import Run, spec

KINDS = {
    "prompt_tuning": {},
    "multitask_prompt_tuning": {},
    "p_tuning": {"encoder_hidden_size": 32},
    "prefix_tuning": {},
}


def attached(folder, *, max_length=64, datasets=("one", "two"), **method):
    data = DataSpec(max_length=max_length, datasets=datasets)
    context = SimpleNamespace(
        task="CAUSAL_LM",
        base=folder,
        spec=SimpleNamespace(data=data),
        token_ids=lambda text: [ord(letter) for letter in text.strip()],
    )
    parsed = TypeAdapter(Method).validate_python({"virtual_tokens": 5, **method})
    return tuning(parsed).attach(AutoModelForCausalLM.from_pretrained(folder), context)


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_answers_and_reloads_with_equal_logits(tiny, studio_home, tmp_path, kind):
    method = {"kind": kind, "virtual_tokens": 5, **KINDS[kind]}
    ran = train(tiny(), sums(tmp_path), tmp_path / "run", method)
    assert len({step.loss for step in ran.run.of(Step)}) == 3
    assert ran.run.of(Sample), "sample answers are written with the prompt in front"
    loaded = ran.reloaded()
    answer_as(loaded, "default")
    again = ran.reloaded(ran.run.checkpoints / "checkpoint-3")
    answer_as(again, "default")
    assert torch.equal(logits(loaded)[:, -7:], logits(again)[:, -7:])
    assert (logits(loaded)[:, -7:] - logits(ran.plain())).abs().max() > 1e-4


@pytest.mark.parametrize(
    "method",
    [
        {"kind": "p_tuning", "encoder": "lstm", "encoder_hidden_size": 16, "encoder_layers": 2, "encoder_dropout": 0.2},
        {"kind": "prefix_tuning", "projection": True, "encoder_hidden_size": 16},
        {"kind": "prefix_tuning"},
    ],
    ids=["lstm", "projection", "plain"],
)
def test_a_resumed_run_has_its_encoder_back_and_ends_bit_for_bit_the_same(tiny, dataset, tmp_path, method):
    wanted = TrainSpec.model_validate(
        spec(tiny(), dataset, training={"save_steps": 2, "max_steps": 4}, evaluation={"prompts": []}).model_dump(
            mode="json"
        )
        | {"method": {"virtual_tokens": 4, **method}}
    )
    whole, halved = Run(tmp_path / "whole"), Run(tmp_path / "halved")
    whole(wanted)
    assert halved(wanted, stop_at=2) is None
    halved(wanted)
    assert [step.loss for step in halved.of(Step)] == [step.loss for step in whole.of(Step)][2:]
    assert torch.equal(whole.weights()["prompt_embeddings"], halved.weights()["prompt_embeddings"])


def test_what_is_saved_is_written_without_dropout(tiny, dataset, tmp_path):
    method = {"kind": "p_tuning", "virtual_tokens": 4, "encoder": "lstm", "encoder_dropout": 0.9}
    ran = train(tiny(), dataset, tmp_path / "run", method, training={"save_steps": 3})
    kept = load_file(ran.run.checkpoints / "checkpoint-3" / "adapter_model.safetensors")
    assert torch.equal(kept["prompt_embeddings"], ran.run.weights()["prompt_embeddings"])


def test_a_text_to_start_from_is_repeated_to_the_length_of_the_prompt(tiny):
    model = attached(tiny(), kind="prompt_tuning", init_text="abc")
    words = model.get_input_embeddings().weight
    expected = words[[ord(letter) for letter in "abcab"]]
    assert torch.equal(model.prompt_encoder["default"].embedding.weight, expected)


def test_a_text_without_tokens_is_no_start(tiny):
    with pytest.raises(SpecError, match=r"method\.init_text: holds no token"):
        attached(tiny(), kind="prompt_tuning", init_text=" ")


def test_virtual_tokens_take_positions_that_the_model_must_have(tiny):
    with pytest.raises(SpecError, match="take 517 positions together, but the model has 512"):
        attached(tiny(), max_length=512, kind="prefix_tuning")


def test_a_padded_row_weighs_no_more_than_the_same_row_alone(tiny):
    """Right-padded batches, as soft prompts need them instead of rows that lie end to end."""
    model = attached(tiny(), kind="prompt_tuning").eval()
    short, long = [5, 6, 7], [5, 9, 8, 7, 30, 31]
    padded = torch.tensor([[*short, 0, 0, 0], long])
    labels = torch.tensor([[*short, -100, -100, -100], long])
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1] * 6])
    together = model(input_ids=padded, attention_mask=mask, labels=labels).loss
    alone = [model(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss for ids in (short, long)]
    # the first token of a row is predicted too, from the prompt
    expected = (alone[0] * len(short) + alone[1] * len(long)) / (len(short) + len(long))
    assert torch.allclose(together, expected, atol=1e-5)


class TestTasks:
    @pytest.fixture
    def rows(self, tiny, studio_home, tmp_path):
        sums(tmp_path)
        (tmp_path / "greetings.json").write_text(
            json.dumps([{"instruction": f"Hi {number}", "output": "Hello."} for number in range(4)])
        )
        registry.add(tmp_path / "greetings.json", "greetings")
        wanted = spec(tiny(), "sums", data={"datasets": ["sums", "greetings"], "validation_share": 0.25})
        wanted = TrainSpec.model_validate(
            wanted.model_dump(mode="json") | {"method": {"kind": "multitask_prompt_tuning"}}
        )
        tokenizer = TextTokenizer.from_folder(tiny())
        template = resolve_template("auto", tokenizer)
        return prepare(wanted, tokenizer, template, lambda event: None, place=tmp_path / "rows")

    def test_each_row_carries_the_number_of_its_dataset(self, rows):
        assert rows.train[TASKS][:] == [0] * 12 + [1] * 3
        assert rows.held[TASKS][:] == [0] * 4 + [1]

    def test_a_batch_names_the_task_of_each_row(self):
        rows = Dataset.from_dict({"input_ids": [[1], [2]], TASKS: [1, 0]})
        batch = _WithTasks(lambda given: {"input_ids": torch.tensor([row["input_ids"] for row in given])})(list(rows))
        assert batch[TASKS].tolist() == [1, 0] and batch["input_ids"].tolist() == [[1], [2]]

    def test_there_are_as_many_tasks_as_datasets(self, tiny):
        model = attached(tiny(), kind="multitask_prompt_tuning", task_rank=2)
        assert model.prompt_encoder["default"].prefix_task_cols.shape == (2, 5, 2)

    def test_a_pass_that_names_no_task_stands_for_the_one_that_was_chosen(self, tiny):
        model = attached(tiny(), kind="multitask_prompt_tuning").eval()
        with torch.no_grad():
            model.prompt_encoder["default"].prefix_task_cols.mul_(100)  # far apart
            first, second = (model(IDS, task_ids=torch.tensor([task])).logits for task in (0, 1))
        assert not torch.allclose(first, second)
        assert torch.equal(logits(model), first), "the first dataset of the run, unless another is chosen"
        answer_as(model, "default", 1)
        assert torch.equal(logits(model), second)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ({"kind": "p_tuning", "encoder": "lstm", "encoder_layers": 3}, {"encoder_num_layers": 3}),
        (
            {"kind": "p_tuning", "encoder_hidden_size": 24, "encoder_dropout": 0.1},
            {"encoder_hidden_size": 24, "encoder_dropout": 0.1, "encoder_num_layers": 2},
        ),
        (
            {"kind": "prefix_tuning", "projection": True, "encoder_hidden_size": 24},
            {"prefix_projection": True, "encoder_hidden_size": 24, "num_virtual_tokens": 5},
        ),
    ],
)
def test_its_fields_reach_the_library(tiny, method, expected):
    config = attached(tiny(), **method).peft_config["default"]
    assert {name: getattr(config, name) for name in expected} == expected
