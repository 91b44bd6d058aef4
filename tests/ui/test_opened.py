import time

import pytest

from studio.data import intake
from studio.errors import DataError
from studio.ui import opened


def finish(steps):
    """What a generator returned, and how often it told something."""
    told = 0
    while True:
        try:
            next(steps)
            told += 1
        except StopIteration as done:
            return done.value, told


def waiting(watch, seconds=10.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        watch.check(1, 2, 3)
        time.sleep(0.02)
    return "done"


@pytest.fixture
def taken(studio_home, tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n", encoding="utf-8")
    return intake.take_in(tmp_path / "a.txt")


def test_rows_are_kept_by_a_token_and_deleted_when_it_is_forgotten(taken):
    token = opened.start(["a.txt"])
    assert not opened.has_rows(token)
    opened.get(token).intake = taken
    assert opened.rows(token) is taken and opened.has_rows(token)
    opened.forget(token)
    assert not taken.path.exists() and not opened.is_open(token)
    with pytest.raises(DataError, match="not open any more"):
        opened.rows(token)


def test_forgetting_what_is_not_open_does_nothing():
    opened.forget("")
    opened.stop("")


def test_a_pass_tells_how_far_it_is():
    token, seen = opened.start(), []
    result, told = finish(opened.passing(token, lambda watch: waiting(watch, 0.8), lambda done, _: seen.append(done)))
    assert result == "done" and told >= 1 and seen[0].rows == 3


def test_a_stopped_pass_raises_and_the_next_one_runs():
    token = opened.start()
    steps = opened.passing(token, waiting, lambda *_: "tick")
    next(steps)
    opened.stop(token)
    with pytest.raises(intake.Stopped):
        finish(steps)
    assert finish(opened.passing(token, lambda watch: waiting(watch, 0.05), lambda *_: None))[0] == "done"


def test_a_browser_that_goes_away_ends_the_work():
    token = opened.start()
    steps = opened.passing(token, waiting, lambda *_: "tick")
    next(steps)
    steps.close()
    assert opened.get(token).stopping.is_set()
    opened.forget(token)
