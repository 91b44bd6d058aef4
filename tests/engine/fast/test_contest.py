"""Which way is taken: only one that gives the same and is quicker."""

import itertools

import pytest
import torch

from studio.engine.fast.contest import MARGIN, quickest


def usual(x, y):
    return x * y + x.sin()


def reordered(x, y):
    return x.sin() + y * x


@pytest.fixture
def given():
    chance = torch.Generator().manual_seed(0)
    return [torch.randn(3, 4, generator=chance).requires_grad_(), torch.randn(3, 4, generator=chance)]


def clock_for(**seconds):
    """A clock, and ways that take so long by it."""
    now = [0.0]

    def taking(name, way):
        def taken(*given):
            now[0] += seconds[name]
            return way(*given)

        return taken

    return (lambda: now[0]), taking


@pytest.mark.parametrize(("other_s", "wins"), [(0.5, True), (MARGIN - 0.01, True), (MARGIN + 0.01, False), (2, False)])
def test_another_way_is_taken_only_if_it_is_quicker_by_a_margin(given, other_s, wins):
    clock, taking = clock_for(usual=1.0, other=other_s)
    found = quickest(taking("usual", usual), {"other": taking("other", reordered)}, given, clock=clock)
    assert found == ("other" if wins else None)


def test_the_quickest_of_several_is_taken(given):
    clock, taking = clock_for(usual=1.0, a=0.8, b=0.5, c=0.6)
    others = {name: taking(name, reordered) for name in "abc"}
    assert quickest(taking("usual", usual), others, given, clock=clock) == "b"


def raising(x, y):
    raise ImportError("another version")


WRONG = {
    "values": lambda x, y: usual(x, y) + 0.1,
    "gradient": lambda x, y: usual(x, y) + (x - x.detach()),
    "nothing": lambda x, y: usual(x, y) * float("nan"),
    "shape": lambda x, y: usual(x, y)[:2],
    "failure": raising,
}


@pytest.mark.parametrize("name", WRONG)
def test_what_gives_something_else_or_fails_is_never_taken(given, name):
    ticks = itertools.count()
    assert quickest(usual, {name: WRONG[name]}, given, clock=lambda: next(ticks)) is None


def test_the_run_s_own_random_numbers_are_left_alone(given):
    before = torch.get_rng_state()
    quickest(usual, {"other": reordered}, given)
    assert torch.equal(torch.get_rng_state(), before)
