"""A checkpoint that the disk has no room for is waited for, not lost."""

import shutil
from types import SimpleNamespace

import pytest

from studio.engine.checkpoints import complete_checkpoints
from studio.engine.limits import disk as waiting
from studio.events import Note, Phase, Step
from tests.engine.test_train import Run, spec


@pytest.fixture
def disk(monkeypatch):
    """disk.free: bytes that the disk has left, for each time it is asked; the last one stays."""
    state = SimpleNamespace(free=[10**12], asked=0)

    def usage(place):
        state.asked += 1
        return SimpleNamespace(free=state.free[min(state.asked, len(state.free)) - 1])

    monkeypatch.setattr(waiting, "shutil", SimpleNamespace(disk_usage=usage))
    return state


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


def saved(run):
    return [step for step, _ in complete_checkpoints(run.checkpoints)]


def test_a_run_waits_and_goes_on_with_every_checkpoint(tiny, dataset, run, disk, monkeypatch):
    monkeypatch.setattr(waiting.time, "sleep", lambda seconds: None)
    disk.free = [10**12, 1000, 1000, 1000, 1000, 10**12]
    assert run(spec(tiny(), dataset, evaluation={"prompts": []})) is not None
    assert saved(run) == [2, 4, 6]
    (note,) = [event.text for event in run.of(Note) if "Paused" in event.text]
    assert "Paused after step 4" in note and "goes on by itself" in note
    assert [phase.name for phase in run.of(Phase)].count("no_room") == 1


def test_a_stop_while_it_waits_ends_it_with_the_checkpoints_it_has(tiny, dataset, run, disk):
    disk.free = [10**12, 1000]
    outcome = run(spec(tiny(), dataset, evaluation={"prompts": []}), stop_at=4)
    assert outcome is None and saved(run) == [2]
    assert run.of(Step)[-1].step <= 4


def test_the_need_is_told_from_the_newest_checkpoint(tmp_path, tiny):
    import torch

    model = torch.nn.Linear(1000, 1000)
    watch = waiting.Room(tmp_path / "none", lambda: False, print)
    assert watch._needed(model) == waiting.SPARE + 3 * 4 * (1000 * 1000 + 1000)
    assert watch._free() == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
