import pytest

from studio.engine.counting.shapes import shapes_of
from studio.engine.fit.activations import Arithmetic, Row, plain_layer
from studio.engine.fit.blocks import blocks, geometry
from studio.engine.fit.fast import fast_head, fast_layer, fast_layer_constant, largest_pass
from studio.specs import TrainSpec, parse
from tests.engine.fit.saved import saved_in_second_layer

BF16 = Arithmetic(2, 2)
ALONE = Row(context=32, masked=False)


def kept(shapes, row=ALONE, arithmetic=BF16, gpu=False, **method):
    spec = parse(TrainSpec, {"method": {"rank": 4, **method}})
    return fast_layer(geometry(shapes), blocks(shapes, spec)[0], row, arithmetic, gpu=gpu)


def test_every_tensor_of_a_layer_is_kept_once_in_bf16(shapes):
    found = kept(shapes)
    assert found["norms"] == 2 * 4  # their outputs are the inputs below
    assert found["attention"] == 2 * (64 + 32 + 32 + 64) + 4 * 4
    assert found["mlp"] == 2 * 2 * 128
    assert found["input of attention"] == found["input of mlp"] == 2 * 64
    assert "input of o_proj" not in found  # it is attention's output
    assert "input of down_proj" not in found  # made again
    assert found["low-rank products"] == 7 * 2 * 4
    assert sum(found.values()) == 8 + 400 + 512 + 2 * 128 + 56
    assert kept(shapes, gpu=True) == found | {"input of o_proj": 2 * 64}


def test_an_input_that_nothing_adapted_reads_is_kept_by_its_norm_alone(shapes):
    whole, attention = kept(shapes), kept(shapes, target_modules=["attention"])
    assert sum(whole.values()) - sum(attention.values()) == 3 * 2 * 4  # the MLP's input still counts, as its norm's


def test_with_dropout_the_product_of_the_mlp_is_kept(shapes):
    found = kept(shapes, Row(context=32, masked=False, dropout=True))
    assert found["input of down_proj"] == 2 * 128 and found["dropout"] == 5 * 64 + 64 + 128


def test_what_is_not_fused_keeps_what_trl_keeps_but_for_the_mask(shapes):
    spec = parse(TrainSpec, {"method": {"rank": 4, "dora": True}})
    dora = Row(context=32, masked=True, dora=True)
    plain = plain_layer(geometry(shapes), blocks(shapes, spec)[0], Row(32, masked=False, dora=True), BF16)
    assert sum(kept(shapes, dora, dora=True).values()) == sum(plain.values())
    assert sum(kept(shapes, dora, gpu=True, dora=True).values()) == sum(plain.values()) + 2 * 64
    packed = Arithmetic(2, 2, "int8")
    assert kept(shapes, arithmetic=packed)["norms"] == 2 * (4 * 64 + 4)


def test_a_pass_takes_the_rows_of_a_step_as_far_as_they_fit():
    def tokens(size, accumulation, length, gpu=False):
        training = {"batch_size": size, "accumulation": accumulation}
        spec = parse(TrainSpec, {"data": {"max_length": length}, "training": training})
        return largest_pass(spec, None, gpu=gpu).tokens

    assert tokens(1, 2, 128) == 256
    assert tokens(4, 8, 128) == 512
    assert tokens(1, 2, 1024) == 1024  # a single row
    assert tokens(8, 2, 512, gpu=True) == 8192


def test_several_passes_of_a_step_are_told():
    data = {"max_length": 128}
    one, two = (
        parse(TrainSpec, {"data": data, "training": {"batch_size": size, "accumulation": 2}}) for size in (2, 8)
    )
    assert not largest_pass(one, None, gpu=False).several
    assert largest_pass(two, None, gpu=False).several


def test_factors_are_copied_in_bf16(shapes):
    spec = parse(TrainSpec, {"method": {"rank": 4, "target_modules": ["q_proj"]}})
    assert fast_layer_constant(blocks(shapes, spec)[0], 2) == 2 * 4 * 128


def test_logits_are_there_for_a_chunk_of_supervised_positions_alone():
    few, many = fast_head(1000, 64, 4096, 100, 2), fast_head(1000, 64, 4096, 4096, 2)
    assert few["logits of a chunk in fp32"] == 4 * 100 * 1000
    assert many["logits of a chunk in fp32"] == 4 * 128 * 1000
    assert many["hidden states at supervised positions"] == 2 * 4096 * 64


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("targets", [["all-linear"], ["attention"]])
def test_it_is_what_the_fast_path_saves(tiny, precision, targets):
    path = pytest.importorskip("studio.engine.fast.path")
    saved, tokens = _saved(path, tiny("llama"), targets, half=precision == "bf16")
    spec = parse(TrainSpec, {"method": {"rank": 4, "target_modules": targets}})
    arithmetic = BF16 if precision == "bf16" else Arithmetic(4, 4)
    shapes = shapes_of(str(tiny("llama")))
    block, row = blocks(shapes, spec)[1], Row(context=tokens, masked=True)
    estimated = tokens * sum(fast_layer(geometry(shapes), block, row, arithmetic).values())
    assert estimated + fast_layer_constant(block, arithmetic.width) == saved


def _saved(path, folder, targets, *, half):
    """(bytes of the storages that the second layer saves for the backward pass of two rows, their tokens)."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from studio.engine.fast import attention
    from studio.engine.fast.documents import Document

    dtype = torch.bfloat16 if half else torch.float32
    named = ["q_proj", "k_proj", "v_proj", "o_proj"] if targets == ["attention"] else "all-linear"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    model = get_peft_model(model, LoraConfig(r=4, target_modules=named)).train()
    rows = [Document(ids, ids.clone()) for ids in (torch.arange(3, 67), torch.arange(100, 164))]
    opened = path.open_path(model, rows, dtype=dtype, mixed=half)
    passed = opened.passed(rows, torch.device("cpu"))
    with attention.within(passed.layout, torch.device("cpu")):
        saved = saved_in_second_layer(model, lambda: opened.run(passed))
    return saved, passed.layout.tokens
