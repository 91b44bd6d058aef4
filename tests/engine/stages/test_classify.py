"""A classifier learns labels on a tiny model, and plain PEFT reads what is saved."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, GPT2Config, GPT2ForSequenceClassification, set_seed

from studio import presets
from studio.data import registry
from studio.engine.checkpoints import complete_checkpoints
from studio.engine.evaluation.classifying import padded, probabilities
from studio.engine.methods import Context, tuning
from studio.engine.models.load import load_base, load_tokenizer, recorded
from studio.engine.stages import STAGES
from studio.engine.train import parameter_counts
from studio.errors import SpecError
from studio.events import Measured, Note, Plan, Step
from studio.specs import TrainSpec, parse, read_yaml
from tests.engine.test_train import Run

LABELS = ("eggs", "ham", "spam")
PAD = 0


@pytest.fixture
def sms(studio_home, tmp_path):
    """A registered set of texts that anybody can tell apart: 24 ham, 12 spam."""
    said = {"ham": ("see you", "good night", "hello there", "on my way"), "spam": ("win a prize", "free cash")}
    rows = [
        {"text": f"{text} {number}{' and more' * (number % 3)}", "label": label}
        for label, texts in said.items()
        for text in texts
        for number in range(6)
    ]
    path = tmp_path / "sms.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return registry.add(path, "sms").name


def spec(folder, dataset="sms", **sections):
    values = {
        "model": {"name": str(folder)},
        "quantization": {"kind": "none"},
        "data": {"datasets": [dataset], "max_length": 64, "validation_share": 0.1, "test_share": 0.2},
        "method": {"kind": "lora", "rank": 4},
        "stage": {"kind": "classify"},
        "training": {"max_steps": 16, "batch_size": 8, "accumulation": 1, "learning_rate": 5e-3, "save_steps": 8},
    }
    for name, changes in sections.items():
        values[name] = changes if name == "method" else values.get(name, {}) | changes
    return parse(TrainSpec, values)


def test_a_run_tells_accuracy_before_and_after_on_the_three_splits_and_records_them(tiny, sms, tmp_path):
    run = Run(tmp_path / "run")
    assert run(spec(tiny(), stage={"balance": True})) == run.adapter
    (plan,) = run.of(Plan)
    assert (plan.rows, plan.validation_rows, plan.counts["sms"]["tested"]) == (17, 2, 5)
    examined = json.loads(run.record.read_text())["examined"]
    for step, when in ((0, "before"), (16, "after")):
        told = {
            each.subject: each.scores for each in run.of(Measured) if each.step == step and each.subject != "adapter"
        }
        assert told == examined[when] and list(told) == ["train", "validation", "test"]
        assert [scores["rows"] for scores in told.values()] == [17, 2, 5]
    assert examined["after"]["train"]["accuracy"] == 1.0 > examined["before"]["train"]["accuracy"]
    (note,) = [each.text for each in run.of(Note) if each.text.startswith("Accuracy before")]
    assert note.startswith("Accuracy before → after: train ") and "→ 100.0%, validation " in note
    assert {"ham", "spam"} == set(recorded(run.adapter, "labels"))
    steps = run.of(Step)
    assert steps[-1].figures["accuracy"] == 1.0 and steps[-1].tokens_per_s > 0
    assert all("accuracy" in each.scores and "perplexity" not in each.scores for each in run.of(Measured))


@pytest.mark.parametrize("head", [pytest.param("whole", marks=pytest.mark.slow), "adapter"])
def test_a_stopped_run_goes_on_as_if_nothing_had_been(tiny, sms, tmp_path, head):
    wanted = spec(
        tiny(),
        stage={"head": head},
        method={"kind": "lora", "rank": 4, "dropout": 0.1},
        training={"max_steps": 6, "save_steps": 100},
    )
    whole, halved = Run(tmp_path / "whole"), Run(tmp_path / "halved")
    whole(wanted)
    assert halved(wanted, stop_at=3) is None
    before = json.loads(halved.record.read_text())["examined"]
    assert list(before) == ["before"]
    assert [step for step, _ in complete_checkpoints(halved.checkpoints)] == [3]
    halved(wanted)
    examined = json.loads(halved.record.read_text())["examined"]
    assert examined == json.loads(whole.record.read_text())["examined"] and examined["before"] == before["before"]
    for name, tensor in whole.weights().items():
        assert torch.equal(tensor, halved.weights()[name]), name


METHODS = [
    ("llama", {"kind": "lora"}, {}),
    ("llama", {"kind": "ia3"}, {}),
    ("llama", {"kind": "prefix_tuning", "virtual_tokens": 4}, {}),
    ("llama", {"kind": "full"}, {}),
    ("gpt2", {"kind": "bitfit"}, {}),
    ("llama", {"kind": "lora", "dora": True, "target_modules": ["q_proj"]}, {"head": "adapter"}),
    ("llama", {"kind": "lora", "target_modules": ["attention"], "layers": [1]}, {"head": "adapter"}),
    ("gpt2", {"kind": "lora", "target_modules": ["re:.*c_attn"]}, {"head": "adapter", "head_bias": True}),
    ("gpt2", {"kind": "lora", "split_fused": True}, {"head": "adapter", "head_bias": True}),
]


@pytest.mark.parametrize(("base", "method", "stage"), METHODS)
def test_what_is_saved_reloads_with_plain_peft_and_a_row_is_the_same_alone_and_in_a_batch(
    tiny, tmp_path, base, method, stage
):
    folder = tiny(base)
    model, tuned = attached(folder, spec(folder, method=method, stage=stage))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter) * 0.02)
    rows = [[5, 6, 7, 8, 9], [10, 11]]
    model.train()(**padded(rows, PAD), labels=torch.tensor([0, 2])).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    wanted = torch.tensor(probabilities(model, rows, pad=PAD, batch_size=2))
    alone = torch.tensor(probabilities(model, rows, pad=PAD, batch_size=1))
    tuned.save(model, tmp_path / "saved")
    torch.testing.assert_close(alone, wanted, atol=1e-5, rtol=0)
    again = torch.tensor(probabilities(reloaded(folder, tmp_path / "saved"), rows, pad=PAD, batch_size=2))
    torch.testing.assert_close(again, wanted, atol=1e-5, rtol=0)


def attached(folder, wanted):
    """A model with a head and the method of a spec on it, and the tuning."""
    tuned = STAGES["classify"].method(wanted, tuning(wanted.method))
    context = Context(wanted, folder, load_tokenizer(folder)[1].ids, lambda count: iter(()), "SEQ_CLS")
    set_seed(1)
    model = load_base(folder, dtype="fp32", labels=LABELS)
    assert model.config.id2label == dict(enumerate(LABELS))
    return tuned.attach(model, context), tuned


def reloaded(folder, saved):
    """With transformers and PEFT alone; the seed is another one, so that no head is right by chance."""
    set_seed(2)
    if not (saved / "adapter_config.json").is_file():
        return AutoModelForSequenceClassification.from_pretrained(saved)
    base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(LABELS))
    return PeftModel.from_pretrained(base, saved)


@pytest.mark.parametrize("kind", ["nf4", pytest.param("int8", marks=pytest.mark.slow)])
def test_a_head_trains_on_a_quantised_base_in_full_precision(tiny, sms, tmp_path, kind):
    run = Run(tmp_path / "run")
    run(spec(tiny(), quantization={"kind": kind}))
    head = run.weights()["base_model.model.score.weight"]
    assert head.dtype == torch.float32 and head.shape == (2, 64)
    assert json.loads(run.record.read_text())["examined"]["after"]["train"]["accuracy"] > 0.9


def test_a_model_without_a_chat_template_can_classify(tiny, sms, tmp_path):
    folder = shutil.copytree(tiny("gpt2"), tmp_path / "plain")
    (folder / "chat_template.jinja").unlink()
    run = Run(tmp_path / "run")
    wanted = spec(folder, training={"max_steps": 1}, stage={"head": "adapter"})
    assert run(wanted) == run.adapter
    assert [name for name in run.weights() if "score" in name] == ["base_model.model.score.weight"]


def test_gpt2_has_the_parameters_of_the_book():
    """Source: S. Raschka, Build a Large Language Model (From Scratch), appendix E: 124,441,346 and 2,666,528."""
    wanted = parse(TrainSpec, read_yaml(presets.text("sms-spam-gpt2")))
    inner = tuning(wanted.method)
    totals = []

    def attach(model, context):
        totals.append(parameter_counts(model)[1])
        return inner.attach(model, context)

    with torch.device("meta"):
        empty = GPT2ForSequenceClassification(GPT2Config(num_labels=2, pad_token_id=50256))
    tuned = STAGES["classify"].method(wanted, replace(inner, attach=attach))
    context = Context(wanted, None, None, lambda count: iter(()), "SEQ_CLS")
    model = tuned.attach(empty.to_empty(device="cpu"), context)
    assert totals == [124_441_346]
    assert tuned.count(model) == 2_666_528 == 12 * (3 * 24_576 + 24_576 + 2 * 61_440) + 16 * (768 + 2)


@pytest.mark.parametrize(
    ("method", "stage", "told"),
    [
        ({"kind": "p_tuning"}, {}, r"method\.kind: p_tuning does not work with the stage classify"),
        ({"kind": "ia3"}, {"head": "adapter"}, r"stage\.head: adapter needs the method lora, not ia3"),
        ({"kind": "lora", "init": "pissa"}, {"head": "adapter"}, r"stage\.head: adapter does not go with method\.init"),
        ({"kind": "lora"}, {"head_bias": True}, r"stage\.head_bias: needs head adapter"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_loads(method, stage, told):
    with pytest.raises(SpecError, match=told):
        spec("./nowhere", method=method, stage=stage)
