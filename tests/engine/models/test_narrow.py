"""Models that hold their weights in 16 bits and compute in fp32."""

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from studio.engine.models import narrow as narrowing
from studio.engine.models.load import load_base
from studio.engine.models.narrow import is_narrow, narrow, stored_half, unpacked, widen
from studio.engine.models.quantize import keep_trainable
from studio.specs import QuantizationSpec

IDS = torch.arange(5, 25)[None]


@pytest.fixture
def half(tiny, tmp_path):
    """half(kind, dtype) -> a tiny model's folder with weights in 16 bits."""

    def build(kind="llama", dtype=torch.bfloat16):
        folder = tmp_path / f"{kind}-half"
        AutoModelForCausalLM.from_pretrained(tiny(kind), dtype=dtype).save_pretrained(folder)
        return folder

    return build


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])  # tied or not, with biases, with layers of another class
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_narrow_model_answers_to_the_bit_as_a_wide_one(half, kind, dtype):
    folder = half(kind, dtype)
    wide, narrow = (load_base(folder, dtype="fp32", narrowed=narrowed) for narrowed in (False, True))
    held = {each.weight.dtype for each in narrow.modules() if is_narrow(each)}
    assert held == {dtype} and narrow.dtype in (torch.float32, dtype)
    with torch.no_grad():
        wanted = wide(input_ids=IDS).logits
        assert torch.equal(narrow(input_ids=IDS).logits, wanted)
        widen(narrow)
        assert torch.equal(narrow(input_ids=IDS).logits, wanted)
    assert {each.dtype for each in narrow.parameters()} == {torch.float32}


@pytest.mark.parametrize("bias", [True, False])
def test_a_narrow_layer_keeps_nothing_of_its_weight_for_its_gradient(bias, monkeypatch):
    monkeypatch.setattr(narrowing, "_ROWS", 4)
    wide = torch.nn.Linear(6, 10, bias=bias).requires_grad_(False)
    wide.weight.copy_(wide.weight.bfloat16())
    held = torch.nn.Sequential(torch.nn.Linear(6, 10, bias=bias)).requires_grad_(False)
    held.load_state_dict({f"0.{name}": each for name, each in wide.state_dict().items()})
    narrow(held.bfloat16())
    if bias:
        held[0].bias.copy_(wide.bias)
    x, saved = torch.randn(2, 3, 6, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: saved.append(each) or each, lambda each: each):
        found = held(x)
    assert not saved
    direction = torch.randn_like(found)
    torch.testing.assert_close(found, wide(x))
    torch.testing.assert_close(torch.autograd.grad(found, x, direction), torch.autograd.grad(wide(x), x, direction))


def test_4_bit_weights_of_a_narrow_model_are_those_of_a_wide_one(half):
    folder = half()
    nf4 = QuantizationSpec(kind="nf4")
    wide, narrow = (load_base(folder, dtype="fp32", quantization=nf4, narrowed=narrowed) for narrowed in (False, True))
    keep_trainable(wide)
    keep_trainable(narrow)
    with torch.no_grad():
        wanted = wide(input_ids=IDS).logits
        assert torch.equal(narrow(input_ids=IDS).logits, wanted)
        widen(narrow)
        assert torch.equal(narrow(input_ids=IDS).logits, wanted)
    assert {each.dtype for each in narrow.parameters()} == {torch.float32, torch.uint8}


def test_weights_of_more_bits_are_not_cut(tiny):
    assert stored_half(tiny()) is None
    model = load_base(tiny(), dtype="fp32", narrowed=True)
    assert {each.dtype for each in model.parameters()} == {torch.float32} and not any(map(is_narrow, model.modules()))


def test_a_4_bit_base_is_unpacked_for_a_while_and_answers_alike(tiny, monkeypatch):
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(tiny(), quantization_config=config, dtype=torch.float32)
    keep_trainable(model)
    layer = model.model.layers[0].mlp.up_proj
    with torch.no_grad():
        wanted = model(input_ids=IDS).logits
        with unpacked(model):
            assert "forward" in layer.__dict__
            torch.testing.assert_close(model(input_ids=IDS).logits, wanted)
        assert "forward" not in layer.__dict__ and torch.equal(model(input_ids=IDS).logits, wanted)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000}))
        with unpacked(model):
            assert "forward" not in layer.__dict__  # there is no room
