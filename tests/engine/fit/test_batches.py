import numpy as np

from studio.engine.fit.batches import Rows, largest
from studio.specs import TrainSpec, parse


def spec(**values):
    training = {"batch_size": values.pop("batch_size", 2)}
    return parse(TrainSpec, {"data": {"max_length": 100}, "training": training, **values})


def rows(*lengths):
    return Rows(np.array(lengths), np.array(lengths) // 2)


def test_uncounted_rows_are_all_as_long_as_the_cutoff():
    found = largest(spec(), None)
    assert (found.sequences, found.length, found.tokens, found.supervised) == (1, 200, 200, 200)


def test_rows_that_lie_end_to_end_add_up():
    found = largest(spec(batch_size=4), rows(10, 20, 30, 40))
    assert (found.sequences, found.tokens, found.longest, found.supervised) == (1, 100, 40, 50)


def test_rows_of_a_method_that_pads_are_as_long_as_the_longest():
    prompted = {"method": {"kind": "prefix_tuning"}, "quantization": {"kind": "none"}}
    found = largest(spec(batch_size=4, **prompted), rows(10, 20, 30, 40))
    assert (found.sequences, found.length, found.tokens) == (4, 40, 160)


def test_the_largest_batch_of_random_orders_is_no_larger_than_the_longest_rows():
    lengths = [10] * 98 + [90, 95]
    found = largest(spec(batch_size=2), rows(*lengths))
    assert 100 <= found.tokens <= 185


def test_preferences_see_each_row_twice_and_packing_fills_each_sequence():
    assert largest(spec(stage={"kind": "dpo"}), None).tokens == 400
    assert largest(spec(stage={"kind": "sft", "packing": True}), rows(10, 10)).tokens == 200


def test_a_shorter_cutoff_cuts_what_was_counted():
    cut = rows(10, 80).cut(50)
    assert cut.tokens.tolist() == [10, 50]
    assert cut.total == 60
