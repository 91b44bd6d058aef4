import pytest

from studio.engine.fit.batches import Batch
from studio.engine.fit.logits import logits
from studio.specs import TrainSpec, parse

BATCH = Batch(sequences=1, length=512, rows=4, longest=128, supervised=200)


def head(triton=False, width=2, **values):
    spec = parse(TrainSpec, values)
    return logits(spec, BATCH, vocabulary=50_000, hidden=64, width=width, triton=triton, trains_head=False)


def test_without_triton_a_tile_of_every_position_has_its_temporaries():
    assert head() == 512 * 32_768 * (2 + 29) + 512 * 64 * 6


def test_with_triton_only_supervised_positions_are_there():
    assert head(triton=True) == 200 * 32_768 * 2 + 200 * 64 * 6


@pytest.mark.parametrize(
    "values",
    [{"stage": {"label_smoothing": 0.1}}, {"method": {"target_modules": ["lm_head"]}}, {"stage": {"kind": "orpo"}}],
)
def test_some_objectives_need_all_logits_at_once(values):
    assert head(**values) == 512 * 50_000 * (2 + 4 + 4 + 2)


def test_a_classifier_has_next_to_none():
    assert head(stage={"kind": "classify"}) < 10_000
