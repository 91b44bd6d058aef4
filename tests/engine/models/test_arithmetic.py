"""How fast bf16 is here."""

from studio import hardware
from studio.engine.models import arithmetic
from studio.engine.models.arithmetic import bf16_gain


def test_it_is_measured_once_and_kept(studio_home, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(hardware, "_bf16_flags", lambda: {"avx512_bf16"})
    measured = []
    monkeypatch.setattr(arithmetic, "bf16_gain", lambda: measured.append(1) or 0.6)
    arithmetic.measure_once()
    arithmetic.measure_once()
    assert measured == [1] and hardware.detect().bf16_gain == 0.6


def test_a_product_takes_time_in_either_precision():
    assert 0 < bf16_gain() < 100 and bf16_gain is not arithmetic.bf16_gain  # which no test leaves to the machine
