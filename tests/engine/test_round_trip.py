"""From a template that is not the model's own, over training and export, to plain transformers: the same tokens.

Plain means what a user has: AutoTokenizer, AutoModelForCausalLM, PeftModel, GenerationConfig, and nothing of ours.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from studio.data import registry
from studio.data.example import Message
from studio.engine.export import export
from studio.engine.models.load import load_tokenizer
from studio.events import Note
from studio.home import CHECKOUT
from studio.specs import ExportSpec, TrainSpec
from studio.templates import Policy, encode, generation_prompt, resolve, stop_tokens
from tests.engine.conftest import make
from tests.engine.test_train import Run, spec

MINIMIND = CHECKOUT.parent / "shared" / "models" / "minimind2-small"
QUESTION, ANSWER = "Who are you? 你是谁？", "I am Miro, 你好。"
SYSTEM = 'You\'re "Miro".\n{{ 7 * 7 }} {% endif %} \\n 助手'


@dataclass
class Trip:
    """A run and both of its exports."""

    spec: TrainSpec
    adapter: Path
    merged: Path
    told: list[Any]


def travel(base: Path, place: Path, template: str, system: str | None, answer: str = ANSWER, **training: Any) -> Trip:
    """Train on one conversation until it is known, then export it both ways."""
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": answer}]
    rows = place / "rows.jsonl"
    rows.write_text(json.dumps({"messages": turns}) + "\n", encoding="utf-8")
    wanted = spec(
        base,
        registry.add(rows, "one-row").name,
        template={"name": template, "system": system},
        data={"max_length": 256, "validation_share": 0.0},
        method={"rank": 16, "alpha": 32},
        training={"max_steps": 20, "batch_size": 1, "accumulation": 1, "scheduler": "constant", "save_steps": 20}
        | training,
        evaluation={"prompts": [QUESTION], "max_new_tokens": 24},
    )
    run, told = Run(place / "run"), []
    run(wanted)
    for format in ("adapter", "merged"):
        export(
            ExportSpec(run="r", format=format, dtype="fp32"),
            trained=wanted,
            adapter=run.adapter,
            target=place / format,
            emit=told.append,
            stopping=lambda: False,
        )
    return Trip(wanted, place / "adapter", place / "merged", told)


def served(trip: Trip) -> list[tuple[Any, Any, GenerationConfig]]:
    """(tokenizer, model, settings for generation) of each export, loaded as its card says."""
    base = AutoModelForCausalLM.from_pretrained(trip.spec.model.name, dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(trip.merged, dtype=torch.float32)
    return [
        (AutoTokenizer.from_pretrained(folder), model.eval(), GenerationConfig.from_pretrained(folder))
        for folder, model in (
            (trip.merged, merged),
            (trip.adapter, PeftModel.from_pretrained(base, trip.adapter)),
        )
    ]


def holds(trip: Trip, answer: str = ANSWER) -> None:
    """The exports write and read what was trained, and stop where the answer stopped."""
    _, ours = load_tokenizer(Path(trip.spec.model.name))
    template = resolve(trip.spec.template.name, ours)
    asked, said = Message("user", QUESTION), Message("assistant", answer)
    trained = encode([asked, said], template, ours, Policy.of(trip.spec.template, trip.spec.data))
    prompt = generation_prompt([asked], template, ours, trip.spec.template.system)
    end = trained.input_ids[trained.learned[-1][1] - 1]
    assert trained.input_ids[: len(prompt)] == prompt and end in stop_tokens(template, ours)
    assert not [event.text for event in trip.told if isinstance(event, Note)], "transformers reads the same from it"
    for tokenizer, model, settings in served(trip):
        turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": answer}]
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        ids = tokenizer.apply_chat_template(turns, return_dict=False)
        # what follows on the last answer's end is nobody's business: neither learned nor seen
        assert trained.text.startswith(text) or text.startswith(trained.text)
        assert ids[: trained.learned[-1][1]] == trained.input_ids[: len(ids)][: trained.learned[-1][1]]
        given = tokenizer.apply_chat_template(
            turns[:1], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        assert given["input_ids"][0].tolist() == prompt
        written = model.generate(**given, generation_config=settings, max_new_tokens=40)[0].tolist()
        assert written == trained.input_ids[: trained.learned[-1][1]], "the answer, its end token, and nothing after it"


@pytest.fixture(scope="module")
def learner(tmp_path_factory):
    """A tiny model that can be sure of a token: the head of a random one says nothing loud enough, and is not trained.

    Its tokenizer has the tokens of ChatGLM 3 too, in which the next speaker's name ends an answer.
    """
    folder = make("llama", tmp_path_factory.mktemp("learner") / "learner")
    weights = load_file(folder / "model.safetensors")
    save_file(
        weights | {"lm_head.weight": 20 * weights["lm_head.weight"]}, folder / "model.safetensors", {"format": "pt"}
    )
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text("utf-8"))
    names = {f"⟨{n}⟩": name for n, name in enumerate(("[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|system|>"))}
    for token in values["added_tokens"]:
        if token["content"] in names:
            token |= {"content": names[token["content"]], "special": True}
    path.write_text(json.dumps(values), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("template", "system"),
    [("zephyr", None), ("vicuna", SYSTEM), ("llama2", SYSTEM), ("alpaca", None)],
    ids=("zephyr", "vicuna", "llama2", "alpaca"),
)
def test_a_template_that_is_not_the_models_own_goes_along(template, system, learner, studio_home, tmp_path):
    holds(travel(learner, tmp_path, template, system, learning_rate=6e-3))


def test_an_answer_that_the_next_speaker_ends_stops_there(learner, studio_home, tmp_path):
    trip = travel(learner, tmp_path, "chatglm3", None, learning_rate=6e-3)
    holds(trip)
    user = AutoTokenizer.from_pretrained(trip.merged).convert_tokens_to_ids("<|user|>")
    for folder in (trip.merged, trip.adapter):
        assert user in json.loads((folder / "generation_config.json").read_text())["eos_token_id"]


@pytest.mark.skipif(not MINIMIND.is_dir(), reason="the model lies in a folder `shared` beside the checkout")
@pytest.mark.parametrize(
    ("template", "system"),
    [
        pytest.param("vicuna", SYSTEM, id="vicuna"),
        pytest.param("zephyr", None, id="zephyr", marks=pytest.mark.slow),
        pytest.param("llama2", SYSTEM, id="llama2", marks=pytest.mark.slow),
    ],
)
def test_a_real_model_learns_another_template_and_stops_by_it(template, system, studio_home, tmp_path):
    holds(travel(MINIMIND, tmp_path, template, system, learning_rate=2e-3))
