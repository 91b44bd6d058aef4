import re
from dataclasses import replace

import pytest

from studio.engine.fit import Change, Machine, estimate
from studio.errors import ModelError
from studio.hardware import Hardware
from studio.specs import TrainSpec, parse
from studio.ui import fit_view
from studio.ui.tabs.train import CHANGEABLE

GIB = 1024**3
CPU = Hardware(cores=2, memory_gib=24, bf16=True)


def fit(free, **training):
    return estimate(parse(TrainSpec, {"training": training}), machine=Machine(CPU, free), fast=True)


@pytest.fixture(autouse=True)
def home(studio_home):
    return studio_home


def widths(markup):
    return [float(width) for width in re.findall(r"width:([\d.]+)%", markup)]


def test_the_bar_has_every_part_as_its_share_of_what_is_free():
    found = fit(64 * GIB)
    bar = fit_view.bar(found, "en")
    assert len(widths(bar)) == 7
    assert sum(widths(bar)) == pytest.approx(100 * found.needed / found.free, abs=0.1)
    assert 'data-verdict="fits"' in bar.replace("'", '"')
    assert "of 64.0 GiB free memory" in bar


def test_a_bar_that_does_not_fit_is_full_and_marks_what_is_free():
    found = fit(GIB // 2)
    bar = fit_view.bar(found, "en")
    assert sum(widths(bar)) == pytest.approx(100, abs=0.1)
    assert f"left:{100 * found.free / found.needed:.2f}%" in bar
    assert "does not fit" in bar


@pytest.mark.parametrize("language", ["en", "zh"])
def test_everything_is_said_in_both_languages(language):
    found = fit(GIB // 2)
    said = fit_view.bar(found, language) + fit_view.details(found, language) + fit_view.advice(found, language)
    assert "{" not in said and "train.fit" not in said
    assert fit_view.details(found, language).count("<li>") == 7


def test_a_change_names_fields_by_their_labels():
    fields = {"training.batch_size": 2, "training.accumulation": 8}
    found = replace(fit(2 * GIB), verdict="tight", change=Change(fields, 3 * GIB // 2))
    assert fit_view.advice(found, "en") == "<p>Set Batch size to 2 and Accumulation to 8: then it needs 1.5 GiB.</p>"
    assert fit_view.advice(found, "zh") == "<p>将批大小设为 2、梯度累积设为 8，则需要 1.5 GiB。</p>"


def test_every_change_is_of_a_field_that_the_button_can_write():
    for free, size in ((5 * GIB, 64), (2 * GIB, 64), (GIB, 4)):
        change = fit(free, batch_size=size).change
        assert set(change.fields if change else ()) <= set(CHANGEABLE)


def test_where_nothing_helps_a_smaller_base_is_advised():
    assert "smaller base" in fit_view.advice(fit(GIB // 8), "en")
    assert fit_view.advice(fit(64 * GIB), "en") == ""


def test_what_cannot_be_estimated_leaves_the_bar_empty():
    def absent(spec):
        raise ModelError("It is not here.")

    assert fit_view.estimated(TrainSpec(), absent) is None
    assert widths(fit_view.bar(None, "en")) == []
    assert fit_view.details(None, "en") == fit_view.advice(None, "en") == ""
