from dataclasses import replace

from studio.engine.fit.weights import weights
from studio.specs import QuantizationSpec

# 2 * 36,864 numbers in linear layers; 1000 * 64 in the embedding, which is the head too; 5 norms of 64
LINEAR, OTHERS = 73_728, 64_320


def test_an_unquantised_base_has_every_number_in_its_precision(shapes):
    none = QuantizationSpec(kind="none")
    assert weights(shapes, none, "bf16").total == 2 * (LINEAR + OTHERS)
    assert weights(shapes, none, "fp32").total == 4 * (LINEAR + OTHERS)


def test_nf4_halves_a_byte_and_leaves_embeddings_and_norms_as_they_are(shapes):
    found = weights(shapes, QuantizationSpec(kind="nf4", double=False), "bf16")
    assert found.plain == 2 * OTHERS
    assert found.quantised == LINEAR // 2
    # an fp32 constant for 64 weights, and a table of 16 fp32 values for each of the 14 layers
    assert found.constants == 4 * LINEAR // 64 + 14 * 64
    assert found.mapped == 0


def test_double_quantisation_keeps_a_byte_of_each_constant(shapes):
    found = weights(shapes, QuantizationSpec(kind="nf4"), "bf16")
    # layers of 4096 weights have 64 constants, of 2048 have 32, of 8192 have 128: one fp32 for up to 256 of them
    assert found.constants == LINEAR // 64 + 14 * 4 + 14 * (64 + 1024 + 4)


def test_int8_keeps_a_byte_a_weight_and_a_constant_a_row(shapes):
    found = weights(shapes, QuantizationSpec(kind="int8"), "bf16")
    assert found.quantised == LINEAR
    assert found.constants == 4 * 2 * (64 + 32 + 32 + 64 + 128 + 128 + 64)
    assert found.mapped == 0


def test_matrices_that_stay_in_their_file_keep_all_of_it_in_view(shapes):
    half = replace(shapes, config=shapes.config | {"dtype": "bfloat16"})
    whole = weights(half, QuantizationSpec(kind="none"), "fp32", narrowed=True)
    norms = 5 * 64
    assert (whole.plain, whole.mapped) == (2 * (LINEAR + OTHERS - norms) + 4 * norms, 0)
    packed = weights(half, QuantizationSpec(kind="nf4"), "fp32", narrowed=True)
    assert (packed.plain, packed.mapped) == (2 * (OTHERS - norms) + 4 * norms, 2 * LINEAR)
    assert weights(shapes, QuantizationSpec(kind="nf4"), "fp32", narrowed=True).plain == 4 * OTHERS
