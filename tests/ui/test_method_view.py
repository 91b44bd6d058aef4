from types import SimpleNamespace

import pytest

from studio import specs
from studio.errors import Fault, ModelError, SpecError
from studio.specs import TrainSpec
from studio.ui import method_view
from studio.ui.tabs.train import _other_method
from tests.ui.test_texts import request

HOSTILE = "<img src=x>"


def counting(trainable, total, size):
    return lambda spec: SimpleNamespace(trainable=trainable, total=total, bytes_on_disk=size)


def no_model(spec):
    raise ModelError(f"{HOSTILE} is not on this machine.")


def wrong_field(spec):
    raise SpecError([Fault("method.target_modules", "names no layer.")])


def held_after(kind, quantised, replaced):
    *_, quantisation, remembered, said = _other_method(kind, quantised, replaced, request())
    return quantisation, remembered, said


def test_the_count_is_said_with_share_and_size():
    said = method_view.counted(TrainSpec(), "en", counting(4_884_480, 139_399_488, 19_537_920))
    assert said == "<p>4.88 M of 139 M parameters train (3.5 %), 19.5 MB on disk</p>"
    whole = method_view.counted(TrainSpec(), "zh", counting(134_515_008, 134_515_008, 538_060_032))
    assert "135 M / 135 M" in whole
    assert "100 %" in whole


def test_why_there_is_no_count_is_said_and_never_markup():
    assert method_view.counted(TrainSpec(), "en", no_model) == (
        "<p class='quiet'>&lt;img src=x&gt; is not on this machine.</p>"
    )


def test_a_field_that_the_model_refuses_is_told_as_a_fault():
    with pytest.raises(SpecError, match="names no layer"):
        method_view.counted(TrainSpec(), "en", wrong_field)


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0"), (999, "999"), (1000, "1 K"), (57_600, "57.6 K"), (999_999, "1 M"), (7e9, "7 B")]
)
def test_amounts_have_three_digits_and_a_unit(number, said):
    assert method_view.amount(number) == said


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_method_and_stage_is_told_in_both_languages(language):
    for kind in specs.kinds("method").values():
        assert method_view.method(kind(), language, unquantised=True).count("<p") == 2
    for kind in specs.kinds("stage").values():
        assert len(method_view.stage(kind(), language)) > 10


def test_what_a_method_cannot_do_stands_beside_it():
    said = method_view.method(specs.FullMethod(), "en")
    assert "Selective" in said
    assert "Trains only on a base that is not quantised." in said
    assert "<p class='quiet'>" not in method_view.method(specs.LoraMethod(), "en")


def test_quantisation_is_turned_off_for_a_method_that_cannot_and_on_again_for_one_that_can():
    none, remembered, said = held_after("full", "nf4", "")
    assert (none, remembered) == ("none", "nf4")
    assert "set to none for it" in said
    assert held_after("freeze", "none", "nf4")[:2] == ("none", "nf4")
    assert held_after("lora", "none", "nf4")[:2] == ("nf4", "")


def test_quantisation_that_the_user_turned_off_stays_off():
    assert held_after("full", "none", "")[:2] == ("none", "")
    assert held_after("lora", "none", "")[:2] == ("none", "")
