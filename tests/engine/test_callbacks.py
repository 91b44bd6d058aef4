"""Rotation of checkpoints, without a trainer."""

import shutil
from types import SimpleNamespace

import pytest

from studio.engine.callbacks import Keeper
from studio.jobs.folder import JobFolder


def test_f55_a_rotation_that_is_killed_in_the_middle_leaves_no_half_checkpoint_that_looks_whole(tmp_path, monkeypatch):
    job = JobFolder(tmp_path)
    keeper = Keeper(job.checkpoints, 1, lambda folder: None, lambda event: None, {})

    def save(step):
        job.checkpoint(step).mkdir(parents=True)
        (job.checkpoint(step) / "weights").write_bytes(b"12345")
        keeper.on_save(None, SimpleNamespace(global_step=step, log_history=[]), None)

    def killed(folder):
        raise KeyboardInterrupt

    save(1)
    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        save(2)
    assert job.checkpoint(1).is_dir() and job.checkpoint_steps() == (2,)
