from studio.engine.counting.parameters import Count
from studio.engine.fit.disk import BESIDE, disk
from studio.specs import TrainSpec, parse

COUNT = Count(trainable=1_000_000, total=51_000_000, bytes_on_disk=4_000_000, targets=7)


def taken(steps=None, tokens=None, validated=0.0, **training):
    spec = parse(TrainSpec, {"training": training, "data": {"validation_share": validated}})
    return disk(spec, COUNT, optimizer="adamw_torch", steps=steps, tokens=tokens, most_tokens=5000)


def test_a_checkpoint_holds_the_adapter_and_two_moments(studio_home):
    assert taken().checkpoint == 4_000_000 + 8_000_000 + BESIDE


def test_one_more_than_the_limit_is_there_while_one_is_written_and_the_best_beside_them(studio_home):
    assert taken(save_total_limit=3).checkpoints == 4
    assert taken(save_total_limit=3, validated=0.1).checkpoints == 5
    assert taken(save_total_limit=3, save_steps=50, steps=60).checkpoints == 2


def test_rows_take_eight_bytes_a_token(studio_home):
    assert taken(tokens=1000).rows == 8000
    assert (taken().rows, taken().rows_known) == (40_000, False)
    found = taken(tokens=1000)
    assert found.needed == 4 * found.checkpoint + 4_000_000 + 8000
    assert found.enough
