import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit

import studio.engine.models.four_bit as four_bit

# that of any device without one of its own
REFERENCE = torch.library.get_kernel("bitsandbytes::quantize_4bit", "MPS")


def of_bitsandbytes(weights, blocksize, quant_type, storage):
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
    return REFERENCE.call_boxed(keys, weights, blocksize, quant_type, storage)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("blocksize", [64, 256, 4096])
@pytest.mark.parametrize("shape", [(64, 96), (7, 320), (33, 31), (1, 5), (700, 640), (3, 5, 64)])
def test_every_bit_is_that_of_bitsandbytes(kind, dtype, blocksize, shape):
    torch.manual_seed(0)
    weights = (torch.randn(shape) * 0.05).to(dtype)
    weights.view(-1)[:3] = torch.tensor([0.0, -0.0, 1e-30])
    mine = torch.ops.bitsandbytes.quantize_4bit(weights, blocksize, kind, torch.uint8)
    for got, wanted in zip(mine, of_bitsandbytes(weights, blocksize, kind, torch.uint8), strict=True):
        assert got.dtype == wanted.dtype and torch.equal(got, wanted)


def test_borders_themselves_and_their_neighbours_fall_as_in_bitsandbytes():
    borders, _ = four_bit._borders("nf4")
    up, down = torch.full_like(borders, 2.0), torch.full_like(borders, -2.0)
    near = torch.cat([borders, torch.nextafter(borders, up), torch.nextafter(borders, down), torch.tensor([-1.0, 1.0])])
    weights = torch.cat([near, torch.ones(64 - len(near))]).view(1, 64)
    mine = torch.ops.bitsandbytes.quantize_4bit(weights, 64, "nf4", torch.uint8)
    assert torch.equal(mine[0], of_bitsandbytes(weights, 64, "nf4", torch.uint8)[0])


@pytest.mark.parametrize("fill", [0.0, float("nan"), float("inf")])
def test_blocks_without_a_scale_do_no_harm(fill):
    packed, largest = torch.ops.bitsandbytes.quantize_4bit(torch.full((2, 64), fill), 64, "nf4", torch.uint8)
    assert packed.shape == (64, 1) and largest.shape == (2,)


def test_weights_are_stored_in_another_dtype_and_come_back():
    weights = torch.randn(64, 64)
    stored, state = quantize_4bit(weights, quant_type="nf4", quant_storage=torch.bfloat16)
    assert stored.dtype == torch.bfloat16
    assert (dequantize_4bit(stored, state) - weights).abs().max() < 0.6
