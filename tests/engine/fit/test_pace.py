import numpy as np
import pytest

from studio.engine.fit import pace
from studio.engine.fit.batches import Rows
from studio.specs import TrainSpec, parse

ROWS = Rows(np.full(10, 30), np.full(10, 20))


def spec(data=(), **training):
    return parse(TrainSpec, {"training": {"batch_size": 2, "accumulation": 2, **training}, "data": dict(data)})


def test_epochs_go_through_all_rows_in_steps_that_the_trainer_counts():
    assert pace.steps(spec(epochs=2), ROWS) == 6  # 5 batches, 3 steps an epoch
    assert pace.tokens(spec(epochs=2), ROWS) == 600
    assert pace.seconds(spec(epochs=2), ROWS, 100.0) == 6


def test_a_number_of_steps_goes_through_so_many_rows():
    assert pace.steps(spec(max_steps=7), None) == 7
    assert pace.tokens(spec(max_steps=7), ROWS) == 7 * 4 * 30


@pytest.mark.parametrize("rows", [None, Rows(np.array([]), np.array([]))])
def test_without_counted_rows_no_time_is_told(rows):
    assert pace.seconds(spec(), rows, 100.0) is None


def test_without_an_earlier_run_no_time_is_told():
    assert pace.seconds(spec(), ROWS, None) is None


def test_what_a_mix_takes_is_not_told():
    mixed = {"datasets": ["a", "b"], "weights": [1, 2]}
    assert pace.steps(spec(mixed), ROWS) is None
    assert pace.tokens(spec(mixed), ROWS) is None
