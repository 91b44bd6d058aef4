"""The best validation, and when to wait no longer, from the trainer's log alone."""

import math

from studio.engine.best import Validation, best, given_up, validations


def log(*losses, figure="eval_loss"):
    steps = [{"step": step, "loss": 1.0} for step in range(1, len(losses) + 1)]
    found = [{"step": step, figure: loss} for step, loss in enumerate(losses, start=1)]
    return [entry for pair in zip(steps, found, strict=True) for entry in pair]


def test_the_first_of_equals_is_the_best():
    assert best(log(3.0, 1.0, 2.0, 1.0)) == Validation(2, "loss", 1.0)
    assert best([{"step": 1, "loss": 1.0}]) is None


def test_of_rewards_more_is_better():
    both = [{"step": 1, "eval_loss": 0.1, "eval_reward": 1.0}, {"step": 2, "eval_loss": 0.2, "eval_reward": 3.0}]
    assert best(both) == Validation(2, "reward", 3.0)
    assert str(best(both)) == "validation reward 3 at step 2"


def test_patience_ends_after_so_many_validations_without_a_better_one():
    falling = log(3.0, 2.0, 2.5, 2.0)
    assert not given_up(falling, 3) and given_up(falling, 2) and not given_up(falling, None)
    assert not given_up(log(3.0, 2.0), 1)


def test_what_is_no_number_is_never_the_best_and_uses_patience_up():
    assert best(log(math.nan, 2.0, math.inf)).step == 2
    assert best(log(math.nan)) is None and given_up(log(math.nan, math.nan), 2)


def test_a_validation_before_the_first_step_is_not_judged():
    assert validations([{"step": 0, "eval_loss": 1.0}, {"step": 5, "eval_loss": 2.0}]) == [Validation(5, "loss", 2.0)]
