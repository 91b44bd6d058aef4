"""Where trackers keep what they are told."""

import os
from importlib.util import find_spec

import pytest

from studio.engine.reporting import kept_in, places
from studio.specs import TrainingSpec
from tests.engine.test_train import Run, spec

EVERY = ("tensorboard", "trackio", "wandb", "mlflow")


def test_every_tracker_that_can_be_chosen_has_a_place_in_the_runs_folder(tmp_path):
    assert TrainingSpec(report_to=EVERY).report_to == EVERY
    for tracker in EVERY:
        assert any(str(tmp_path) in value for value in places([tracker], tmp_path).values()), tracker


def test_what_the_user_has_set_is_left_alone_and_the_rest_goes_again(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    with kept_in(tmp_path / "reports", ["wandb"]):
        assert os.environ["WANDB_MODE"] == "online" and os.environ["WANDB_DIR"] == str(tmp_path / "reports")
        assert (tmp_path / "reports").is_dir()
    assert "WANDB_DIR" not in os.environ and os.environ["WANDB_MODE"] == "online"


def test_without_a_tracker_nothing_is_made(tmp_path):
    with kept_in(tmp_path / "reports", []):
        assert not (tmp_path / "reports").exists()


@pytest.mark.skipif(find_spec("tensorboardX") is None, reason="tensorboardX is not installed")
def test_tensorboard_is_told_in_the_runs_folder(tiny, dataset, tmp_path):
    run = Run(tmp_path / "run")
    run(spec(tiny(), dataset, training={"max_steps": 2, "report_to": ["tensorboard"]}))
    (events,) = (tmp_path / "run" / "reports" / "tensorboard").rglob("events.out.*")
    assert b"train/loss" in events.read_bytes()
