import pytest

from studio.engine.counting.parameters import Count
from studio.engine.fit.trained import state_bytes, trained
from studio.specs import TrainSpec, parse


@pytest.mark.parametrize(
    ("optimizer", "size"),
    [
        ("adamw_torch", 8 * 2560),
        ("paged_adamw_32bit", 8 * 2560),
        ("paged_adamw_8bit", 2 * 2560 + 2 * 4 * 10),  # an fp32 constant for 256 numbers of each moment
        ("lion_8bit", 2560 + 4 * 10),
        ("adafactor", 0),
        ("sgd", 0),
    ],
)
def test_an_optimiser_keeps_its_moments(optimizer, size):
    assert state_bytes(2560, optimizer) == size


def test_an_adapter_and_its_gradients_are_in_fp32():
    count = Count(trainable=1000, total=51_000, bytes_on_disk=4000, targets=7)
    found = trained(TrainSpec(), count, base=50_000, base_width=2, optimizer="adamw_torch")
    assert (found.adapter, found.gradients, found.optimizer) == (4000, 4000, 8000)


def test_what_trains_of_a_bf16_base_is_held_wider():
    spec = parse(TrainSpec, {"method": {"kind": "bitfit"}, "quantization": {"kind": "none"}})
    count = Count(trainable=1000, total=50_000, bytes_on_disk=4000, targets=7)
    found = trained(spec, count, base=50_000, base_width=2, optimizer="adamw_torch")
    assert (found.adapter, found.gradients) == (2000, 4000)
