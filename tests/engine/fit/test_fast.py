from studio.engine.fit.blocks import blocks, geometry
from studio.engine.fit.fast import fast_head, fast_layer, fast_layer_constant
from studio.specs import TrainSpec, parse


def kept(shapes, **method):
    spec = parse(TrainSpec, {"method": {"rank": 4, **method}})
    return fast_layer(geometry(shapes), blocks(shapes, spec)[0], 2)


def test_every_tensor_of_a_layer_is_kept_once_in_bf16(shapes):
    found = kept(shapes)
    norms, inputs, attention, mlp = 2 * (2 * 64 + 4), 2 * 2 * 64, 2 * (64 + 2 * 32 + 64) + 4 * 4, 3 * 2 * 128
    assert sum(found.values()) == norms + inputs + attention + mlp


def test_an_input_that_nothing_adapted_reads_is_not_kept(shapes):
    whole, attention = kept(shapes), kept(shapes, target_modules=["attention"])
    assert sum(whole.values()) - sum(attention.values()) == 2 * 64 + 2 * 128


def test_factors_are_copied_in_bf16(shapes):
    spec = parse(TrainSpec, {"method": {"rank": 4, "target_modules": ["q_proj"]}})
    assert fast_layer_constant(blocks(shapes, spec)[0], 2) == 2 * 4 * 128


def test_logits_are_there_for_a_chunk_of_supervised_positions_alone():
    few, many = fast_head(1000, 64, 4096, 100, 2), fast_head(1000, 64, 4096, 4096, 2)
    assert few["the same in fp32"] == 4 * 100 * 1000
    assert many["the same in fp32"] == 4 * 256 * 1000
    assert many["hidden states at supervised positions"] == 2 * 4096 * 64
