"""A step that runs out of memory begins again in smaller parts, and is the same step."""

import pytest
import torch

from studio.engine.fast.path import Path
from studio.errors import StudioError
from tests.engine.fast.conftest import spec_of

SAID = "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"


@pytest.fixture
def ceiling(monkeypatch):
    """ceiling(tokens): passes with more than these run out of memory; recomputed ones may be twice as long."""

    def build(tokens):
        usual = Path.run

        def run(self, batch):
            if self.model.training and batch.layout.tokens > tokens * (
                2 if self.model.is_gradient_checkpointing else 1
            ):
                raise RuntimeError(SAID)
            return usual(self, batch)

        monkeypatch.setattr(Path, "run", run)

    return build


def test_the_losses_are_those_of_a_run_with_enough_memory(tiny, mixed_lengths, run, ceiling):
    spec = spec_of(tiny("llama"), mixed_lengths, training={"preflight": False})
    unforced = run(spec)
    ceiling(100)
    forced = run(spec)
    assert forced.losses == pytest.approx(unforced.losses, rel=1e-6)
    assert sum("Memory ran out in step 1" in note for note in forced.notes) >= 1
    assert not any("step 2" in note for note in forced.notes)  # what was learned is kept


def test_the_preflight_finds_it_before_the_first_step(tiny, mixed_lengths, run, ceiling):
    spec = spec_of(tiny("llama"), mixed_lengths)
    unforced = run(spec)
    ceiling(100)
    assert run(spec).losses == pytest.approx(unforced.losses, rel=1e-6)


def test_a_row_that_is_too_long_by_itself_is_recomputed(tiny, mixed_lengths, run, ceiling):
    spec = spec_of(tiny("llama"), mixed_lengths)
    unforced = run(spec)
    ceiling(40)
    forced = run(spec)
    assert any("recomputed activations" in note for note in forced.notes)
    assert forced.losses == pytest.approx(unforced.losses, rel=1e-5)


def test_and_where_nothing_helps_the_run_says_what_does(tiny, mixed_lengths, run, ceiling):
    ceiling(20)
    with pytest.raises(StudioError, match=r"Out of memory with a single row of \d+ tokens. Lower data.max_length"):
        run(spec_of(tiny("llama"), mixed_lengths))


def test_other_faults_are_not_taken_for_it(tiny, mixed_lengths, run, monkeypatch):
    def broken(self, batch):
        raise RuntimeError("shapes do not match")

    spec = spec_of(tiny("llama"), mixed_lengths)
    before = run(spec)
    assert before.plan.path == "fast"
    usual = Path.run
    calls = []

    def run_once(self, batch):
        calls.append(1)
        return usual(self, batch) if len(calls) == 1 else broken(self, batch)

    monkeypatch.setattr(Path, "run", run_once)  # the proof goes through, the first step does not
    with pytest.raises(RuntimeError, match="shapes"):
        run(spec)


def test_asked_for_recomputing_begins_with_the_preflight(tiny, mixed_lengths, run, monkeypatch):
    usual, recomputed = Path.run, []

    def told(self, batch):
        recomputed.append((self.model.training, self.model.is_gradient_checkpointing))
        return usual(self, batch)

    monkeypatch.setattr(Path, "run", told)
    run(spec_of(tiny("llama"), mixed_lengths, training={"gradient_checkpointing": "on"}))
    assert {again for training, again in recomputed if training} == {True}


def test_the_preflight_leaves_room_for_the_states_of_the_optimiser(tiny, mixed_lengths, run, monkeypatch):
    spec = spec_of(tiny("llama"), mixed_lengths)
    unforced = run(spec)
    usual, tokens, calls = Path.run, [], []

    def told(self, batch):
        tokens.append(batch.layout.tokens)
        return usual(self, batch)

    def step(self, closure=None):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError(SAID)
        return stepped(self, closure)

    stepped = torch.optim.SGD.step
    monkeypatch.setattr(Path, "run", told)
    monkeypatch.setattr(torch.optim.SGD, "step", step)
    forced = run(spec)
    assert forced.losses == pytest.approx(unforced.losses, rel=1e-6)
    assert any("began again" in note for note in forced.notes) and max(tokens[1:]) > max(tokens[-2:])
