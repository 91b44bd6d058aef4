"""Memory that a pass uses again."""

import torch

from studio.engine.fast import arena
from studio.engine.fast.arena import Arena, kept_like, temporary

X = torch.zeros(3, 5)


def test_what_is_kept_lies_apart_until_the_next_pass_begins():
    memory = Arena()
    with arena.within(memory):
        one, other = kept_like(X), kept_like(X, 2, 2)
        version = one._version
        other.fill_(1.0)
        one.fill_(2.0)
        assert one.shape == (3, 5) and other.shape == (2, 2)
        assert other.unique().tolist() == [1.0] and one.unique().tolist() == [2.0]
        assert one._version == version + 1  # a neighbour that changes is another tensor
    with arena.within(memory):
        assert kept_like(X).data_ptr() == one.data_ptr()


def test_temporaries_are_given_back_in_turn():
    with arena.within(Arena()):
        with temporary() as outer:
            first = outer(X)
            with temporary() as inner:
                second = inner(X, dtype=torch.float64)
            third = outer(X, 4)
        assert second.dtype == torch.float64 and second.data_ptr() != first.data_ptr()
        assert third.data_ptr() == second.data_ptr() and third.shape == (4,)


def test_a_block_grows_with_what_is_asked_for(monkeypatch):
    monkeypatch.setattr(arena, "CHUNK", 1024)
    with arena.within(Arena()):
        places = {kept_like(X, 1000).data_ptr(), kept_like(X, 10).data_ptr(), kept_like(X, 250).data_ptr()}
    assert len(places) == 3


def test_outside_of_a_pass_torch_makes_its_own():
    assert kept_like(X) is None
    with arena.within(None), temporary() as room:
        assert kept_like(X) is None and room(X).shape == X.shape


def test_it_can_be_dropped():
    memory = Arena()
    with arena.within(memory):
        kept_like(X)
    memory.drop()
    assert not memory.kept._chunks and not memory.temporary._chunks
