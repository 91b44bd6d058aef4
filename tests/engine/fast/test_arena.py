"""Memory that a pass uses again."""

import torch

from studio.engine.fast import arena
from studio.engine.fast.arena import Arena, kept_like, lent_like, temporary

X = torch.zeros(3, 5)


def test_what_is_kept_lies_apart_until_the_next_pass_begins():
    memory = Arena()
    with arena.within(memory, keeps=True):
        one, other = kept_like(X), kept_like(X, 2, 2)
        version = one._version
        other.fill_(1.0)
        one.fill_(2.0)
        assert one.shape == (3, 5) and other.shape == (2, 2)
        assert other.unique().tolist() == [1.0] and one.unique().tolist() == [2.0]
        assert one._version == version + 1  # a neighbour that changes is another tensor
    with arena.within(memory, keeps=True):
        assert kept_like(X).data_ptr() == one.data_ptr()


def test_temporaries_are_given_back_in_turn():
    with arena.within(Arena(), keeps=True):
        with temporary() as outer:
            first = outer(X)
            with temporary() as inner:
                second = inner(X, dtype=torch.float64)
            third = outer(X, 4)
        assert second.dtype == torch.float64 and second.data_ptr() != first.data_ptr()
        assert third.data_ptr() == second.data_ptr() and third.shape == (4,)


def test_a_block_grows_with_what_is_asked_for(monkeypatch):
    monkeypatch.setattr(arena, "CHUNK", 1024)
    with arena.within(Arena(), keeps=True):
        places = {kept_like(X, 1000).data_ptr(), kept_like(X, 10).data_ptr(), kept_like(X, 250).data_ptr()}
    assert len(places) == 3


def test_what_is_lent_is_lent_again_when_nobody_holds_it():
    with arena.within(Arena(), keeps=True):
        one = lent_like(X)
        place = one.data_ptr()
        view = one[1:].t()
        del one
        other = lent_like(X)
        assert other.data_ptr() != place  # the view still holds it
        assert other._base is None
        del view
        assert lent_like(X, 2, 2).data_ptr() == place
        assert lent_like(X, 100).shape == (100,)  # none that was given back is large enough


def test_gradients_may_be_added_to_what_was_lent():
    with arena.within(Arena(), keeps=True):
        one = lent_like(X).fill_(1.0)
        x = one.clone().requires_grad_()
        y = x * 2
        (y + torch.mul(y, 3)).sum().backward()
    assert x.grad.unique().tolist() == [8.0]


def test_a_layer_that_is_computed_again_keeps_nothing():
    memory = Arena()
    with arena.within(memory, keeps=False):
        place = kept_like(X).data_ptr()
        assert kept_like(X).data_ptr() == place
    assert not memory.kept._chunks


def test_outside_of_a_pass_torch_makes_its_own():
    with temporary() as room:
        assert kept_like(X).shape == lent_like(X).shape == room(X).shape == X.shape


def test_it_can_be_dropped():
    memory = Arena()
    with arena.within(memory, keeps=True):
        held, given_back = lent_like(kept_like(X)), lent_like(X)
        del given_back
    memory.drop()
    assert not memory.kept._chunks and not memory.temporary._chunks
    del held
    assert not memory.lent._free
