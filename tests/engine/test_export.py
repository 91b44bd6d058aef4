"""Exports load with plain transformers and answer like the adapter did."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
)

from studio.engine.export import export
from studio.engine.methods.bottleneck import BottleneckConfig
from studio.engine.models.load import RECORD, check_base
from studio.engine.models.resolve import identity
from studio.errors import ExportError, ModelError
from studio.events import Measured, Note
from studio.specs import ExportSpec, TrainSpec, parse
from tests.engine.conftest import make
from tests.engine.test_train import Run, spec


@pytest.fixture
def trained(tiny, dataset, tmp_path):
    """(spec, adapter) of a short NF4 run."""
    run = Run(tmp_path / "run")
    wanted = spec(tiny(), dataset, quantization={"kind": "nf4"}, training={"learning_rate": 3e-2})
    run(wanted)
    return wanted, run.adapter


def exported(trained, target, told=None, stopping=lambda: False, **values):
    wanted, adapter = trained
    return export(
        ExportSpec(run="r", **values),
        trained=wanted,
        adapter=adapter,
        target=target,
        emit=(told if told is not None else []).append,
        stopping=stopping,
    )


def logits(model, ids=(5, 6, 7, 900)):
    with torch.inference_mode():
        return model.eval()(torch.tensor([list(ids)])).logits


@pytest.mark.parametrize(("dtype", "bound"), [("fp32", 1e-4), ("bf16", 5e-2), ("fp16", 1e-2)])
def test_a_quantised_run_merges_into_the_full_precision_base_and_says_so(trained, tmp_path, dtype, bound):
    told = []
    target = exported(trained, tmp_path / "out", told, dtype=dtype)
    assert any("full-precision base" in event.text for event in told if isinstance(event, Note))
    merged = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(trained[0].model.name, dtype=torch.float32)
    before = logits(base)
    adapted = logits(PeftModel.from_pretrained(base, trained[1]))
    assert (logits(merged) - adapted).abs().max() < bound * adapted.abs().max()
    assert (adapted - before).abs().max() > 0.1, "the adapter must have changed something"


def test_the_export_carries_tokenizer_template_and_stop_tokens(trained, tmp_path):
    target = exported(trained, tmp_path / "out", dtype="fp32")
    tokenizer = AutoTokenizer.from_pretrained(target)
    own = AutoTokenizer.from_pretrained(trained[0].model.name)
    turns = [{"role": "user", "content": "Hi"}]
    assert tokenizer.apply_chat_template(turns, tokenize=False) == own.apply_chat_template(turns, tokenize=False)
    config = json.loads((target / "generation_config.json").read_text())
    assert config["eos_token_id"] in (2, [2])
    assert not list(target.parent.glob(".out*")), "the scratch folder is gone"


@pytest.mark.parametrize("format", ["adapter", "merged"])
def test_both_exports_carry_what_their_card_tells_to_load(trained, tmp_path, format):
    target = exported(trained, tmp_path / "out", format=format)
    for name in ("chat_template.jinja", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (target / name).is_file(), name
    settings = GenerationConfig.from_pretrained(target)
    tokenizer = AutoTokenizer.from_pretrained(target)
    assert settings.eos_token_id in (2, [2]) and settings.pad_token_id == tokenizer.pad_token_id
    card = (target / "README.md").read_text()
    assert 'GenerationConfig.from_pretrained("this-folder")' in card and "apply_chat_template" in card
    assert "system text" not in card


def test_the_answers_are_compared_before_it_is_done(trained, tmp_path):
    told = []
    exported(trained, tmp_path / "out", told, dtype="fp32")
    (found,) = [event.scores for event in told if isinstance(event, Measured)]
    assert found == {"prompts": 1.0, "same_answers": 1.0}


def test_the_adapter_alone_loads_with_plain_peft(trained, tmp_path):
    target = exported(trained, tmp_path / "out", format="adapter")
    base = AutoModelForCausalLM.from_pretrained(trained[0].model.name, dtype=torch.float32)
    first = logits(PeftModel.from_pretrained(base, target))
    base = AutoModelForCausalLM.from_pretrained(trained[0].model.name, dtype=torch.float32)
    assert torch.equal(first, logits(PeftModel.from_pretrained(base, trained[1])))


def test_an_existing_target_is_not_touched(trained, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    with pytest.raises(ExportError, match="exists already"):
        exported(trained, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_stopped_export_leaves_nothing(trained, tmp_path):
    assert exported(trained, tmp_path / "out", stopping=lambda: True) is None
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_a_target_that_cannot_be_written_says_why(trained, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be written"):
        exported(trained, tmp_path / "file" / "out")


def test_f41_an_adapter_of_another_base_with_the_same_shapes_is_refused(trained, tmp_path):
    other = make("llama", tmp_path / "other", seed=99)
    with pytest.raises(ModelError, match="not those it was trained on"):
        check_base(trained[1], other)


def left(base, place, config=None, **record):
    """What a run of any method leaves: an adapter, or without a config a whole model, strong enough to be seen."""
    kind = AutoModelForSequenceClassification if record else AutoModelForCausalLM
    options = {"num_labels": len(record["labels"])} if record else {}
    torch.manual_seed(3)
    model = kind.from_pretrained(base, dtype=torch.float32, **options)
    model = get_peft_model(model, config) if config else model
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(place)
    about = {"base": "tiny", "identity": identity(base), **record}
    (place / RECORD).write_text(json.dumps(about), encoding="utf-8")
    return place


def asked_for(base, kind="lora", **sections):
    return parse(TrainSpec, {"model": {"name": str(base)}, "method": {"kind": kind}, **sections})


def test_a_whole_model_is_written_as_it_is_and_has_no_adapter(tiny, tmp_path):
    folder = left(tiny(), tmp_path / "whole")
    wanted = asked_for(tiny(), "full", quantization={"kind": "none"}), folder
    target = exported(wanted, tmp_path / "out", dtype="fp32")
    found = load_file(target / "model.safetensors")
    assert all(torch.equal(tensor, found[name]) for name, tensor in load_file(folder / "model.safetensors").items())
    card = (target / "README.md").read_text()
    assert "exported as full weights" in card and 'AutoModelForCausalLM.from_pretrained("this-folder")' in card
    with pytest.raises(ExportError, match="no adapter to export. Export it with format merged"):
        exported(wanted, tmp_path / "other", format="adapter")


def test_a_method_that_cannot_merge_is_refused_before_anything_loads(tmp_path):
    wanted = asked_for(tmp_path / "no-such-model", "bottleneck"), tmp_path / "no-such-adapter"
    with pytest.raises(ExportError, match="trained with bottleneck.*Export the adapter alone with format adapter"):
        exported(wanted, tmp_path / "out", format="merged")


def test_a_method_of_ours_is_exported_with_the_import_that_it_needs(tiny, tmp_path):
    names = ["model.layers.0.mlp", "model.layers.1.mlp"]
    folder = left(tiny(), tmp_path / "ours", BottleneckConfig(task_type="CAUSAL_LM", target_modules=names))
    target = exported((asked_for(tiny(), "bottleneck"), folder), tmp_path / "out", format="adapter")
    assert "import studio.engine.methods" in (target / "README.md").read_text()
    base = AutoModelForCausalLM.from_pretrained(tiny(), dtype=torch.float32)
    before = logits(base)
    assert (logits(PeftModel.from_pretrained(base, target)) - before).abs().max() > 1e-2


def test_a_head_that_no_longer_shares_the_embeddings_is_written_too(tiny, tmp_path):
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], modules_to_save=["lm_head"])
    folder = left(tiny("qwen2"), tmp_path / "untied", config)
    target = exported((asked_for(tiny("qwen2")), folder), tmp_path / "out", dtype="fp32")
    base = AutoModelForCausalLM.from_pretrained(tiny("qwen2"), dtype=torch.float32)
    adapted = logits(PeftModel.from_pretrained(base, folder))
    assert (logits(AutoModelForCausalLM.from_pretrained(target)) - adapted).abs().max() < 1e-4


def test_a_classifier_is_merged_with_its_head_and_labels(tiny, tmp_path):
    config = LoraConfig(task_type="SEQ_CLS", r=4, target_modules="all-linear")
    folder = left(tiny(), tmp_path / "classifier", config, labels=["ham", "spam", "else"])
    told = []
    target = exported((asked_for(tiny(), stage={"kind": "classify"}), folder), tmp_path / "out", told, dtype="fp32")
    merged = AutoModelForSequenceClassification.from_pretrained(target)
    base = AutoModelForSequenceClassification.from_pretrained(tiny(), num_labels=3, dtype=torch.float32)
    assert (logits(merged) - logits(PeftModel.from_pretrained(base, folder))).abs().max() < 1e-4
    assert merged.config.id2label == {0: "ham", 1: "spam", 2: "else"}
    (found,) = [event.scores for event in told if isinstance(event, Measured)]
    assert found == {"prompts": 1.0, "same_answers": 1.0}
    assert "AutoModelForSequenceClassification" in (target / "README.md").read_text()
