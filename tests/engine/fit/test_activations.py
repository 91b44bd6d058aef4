"""By hand for a small layer, and against what autograd really saves."""

import pytest

from studio.engine.fit.activations import Arithmetic, Row, kept_input, layer_constant, plain_layer
from studio.engine.fit.blocks import blocks, geometry
from studio.specs import TrainSpec, parse
from tests.engine.fit.saved import saved_in_second_layer

BF16, FP32 = Arithmetic(2, 2), Arithmetic(4, 4)
ALONE = Row(context=32, masked=False)


def layer(shapes, row=ALONE, arithmetic=BF16, **method):
    block = blocks(shapes, parse(TrainSpec, {"method": {"kind": "lora", "rank": 4, **method}}))[0]
    return plain_layer(geometry(shapes), block, row, arithmetic)


def test_under_autocast_each_adapted_layer_keeps_an_input_of_its_own(shapes):
    found = layer(shapes)
    assert found["norms"] == 2 * (4 * 64 + 4)
    assert found["input of q_proj"] == found["input of o_proj"] == 2 * 64 + 2 * 4
    assert found["input of down_proj"] == 2 * 128 + 2 * 4
    assert found["attention"] == 2 * (64 + 32 + 32 + 64) + 4 * 4
    assert found["mlp"] == 3 * 2 * 128
    assert sum(found.values()) == 520 + 6 * 136 + 264 + 400 + 768


def test_without_autocast_layers_share_their_input(shapes):
    found = layer(shapes, arithmetic=FP32)
    inputs = {name.removeprefix("input of "): size for name, size in found.items() if name.startswith("input")}
    rank, hidden = 4 * 4, 4 * 64
    assert inputs == {
        "q_proj": hidden + rank, "k_proj": rank, "v_proj": rank, "o_proj": rank,
        "gate_proj": hidden + rank, "up_proj": rank, "down_proj": 4 * 128 + rank,
    }  # fmt: skip


def test_rows_that_are_kept_apart_cost_a_mask_and_repeated_keys(shapes):
    found = layer(shapes, Row(context=512, masked=True))
    assert found["attention"] == 2 * 4 * 64 + 4 * 4
    assert found["mask"] == 2 * 512


def test_only_adapted_layers_keep_their_input(shapes):
    found = layer(shapes, target_modules=["attention"])
    assert not {"input of gate_proj", "input of down_proj"} & found.keys()


def test_dropout_and_dora_keep_more(shapes):
    plain = layer(shapes, target_modules=["q_proj"])["input of q_proj"]
    assert layer(shapes, Row(32, False, dropout=True), target_modules=["q_proj"])["input of q_proj"] == plain + 4 * 64
    assert layer(shapes, Row(32, False, dora=True), target_modules=["q_proj"])["input of q_proj"] == plain + 4 * 64


def test_the_factors_are_copied_in_the_precision_of_the_products(shapes):
    block = blocks(shapes, parse(TrainSpec, {"method": {"rank": 4, "target_modules": ["q_proj", "k_proj"]}}))[0]
    assert layer_constant(block, BF16) == 2 * 4 * (128 + 96)
    assert layer_constant(block, FP32) == 0
    assert layer_constant(block, Arithmetic(2, 4)) == 2 * 4 * (128 + 96) + 2 * 36_864


def test_a_recomputed_layer_keeps_its_input_alone(shapes):
    assert kept_input(geometry(shapes), BF16) == 2 * 64


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("targets", [["all-linear"], ["attention"]])
def test_it_is_what_autograd_saves(tiny, precision, targets):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from studio.engine.counting.shapes import shapes_of

    half = precision == "bf16"
    model = AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.bfloat16 if half else torch.float32)
    named = ["q_proj", "k_proj", "v_proj", "o_proj"] if targets == ["attention"] else "all-linear"
    model = get_peft_model(model, LoraConfig(r=4, target_modules=named)).train()
    tokens = 64
    saved = _saved(model, tokens, half=half)
    spec = parse(TrainSpec, {"method": {"rank": 4, "target_modules": targets}})
    shapes, arithmetic = shapes_of(str(tiny("llama"))), BF16 if half else FP32
    block, row = blocks(shapes, spec)[1], Row(context=tokens, masked=True)
    estimated = tokens * sum(plain_layer(geometry(shapes), block, row, arithmetic).values())
    assert estimated + layer_constant(block, arithmetic) == saved


def _saved(model, tokens, *, half):
    """Bytes that the second layer saves of two rows end to end."""
    import torch

    positions = torch.arange(tokens // 2).repeat(2)[None]
    decoder = model.get_base_model().model
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        return saved_in_second_layer(
            model, lambda: decoder(input_ids=torch.ones_like(positions), position_ids=positions, use_cache=False)
        )
