"""Bases that come quantised are recognised, and are trained on as they are."""

import json
import shutil
from importlib.util import find_spec

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from studio.engine.models.quantised import bits_of, scheme_of
from studio.errors import SpecError
from studio.events import Step
from tests.engine.conftest import make
from tests.engine.test_train import Run, spec

IDS = torch.tensor([[5, 6, 7]])


@pytest.mark.parametrize(
    ("values", "scheme"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "hqq"}, "hqq"),
        ({"quant_method": "torchao"}, "torchao"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"load_in_8bit": True}, "bitsandbytes"),
        (None, None),
    ],
)
def test_a_quantised_base_is_known_by_its_config(tmp_path, values, scheme):
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": values}))
    assert scheme_of(tmp_path) == scheme
    assert bits_of(tmp_path) == {"load_in_4bit": 4, "load_in_8bit": 8}.get(list(values or [None])[-1])


def saved(base, folder, config):
    """A copy of a model as its library saves it quantised."""
    AutoModelForCausalLM.from_pretrained(base, quantization_config=config, dtype=torch.float32).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(base / name, folder / name)
    return folder


def train_on(folder, dataset, place):
    """Train on it, and check that the adapter answers on the very same base as it did."""
    run = Run(place)
    run(spec(folder, dataset, model={"dtype": "fp32"}, evaluation={"prompts": []}, training={"max_steps": 8}))
    losses = [step.loss for step in run.of(Step)]
    assert losses[-1] < losses[0]
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, run.adapter).eval()
    with torch.no_grad():
        tuned = model(IDS).logits
        with model.disable_adapter():
            assert (tuned - model(IDS).logits).abs().max() > 1e-3


def test_a_base_that_bitsandbytes_saved_is_trained_on_as_it_is(tiny, dataset, tmp_path):
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    folder = saved(tiny(), tmp_path / "nf4", config)
    with pytest.raises(SpecError, match=r"quantization\.kind: is nf4, but .* is quantised by bitsandbytes already"):
        Run(tmp_path / "refused")(spec(folder, dataset, quantization={"kind": "nf4"}))
    train_on(folder, dataset, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
def test_a_base_that_torchao_saved_is_trained_on_as_it_is(dataset, tmp_path):
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    base = make("llama", tmp_path / "base", hidden=128)
    train_on(saved(base, tmp_path / "int8", TorchAoConfig(Int8WeightOnlyConfig())), dataset, tmp_path / "run")
