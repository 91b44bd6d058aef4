import json

import pytest

from studio import hardware
from tests.benchmarks import train_gpu


@pytest.mark.slow
def test_a_dry_run_on_a_tiny_model_compares_the_same_training(studio_home, capsys):
    """The whole way, but for the size: a model and rows are made, contenders take turns, figures come out."""
    asked = ["--sizes", "tiny", "--contenders", "studio,trl,trl-liger", "--bases", "none", "--steps", "2", "--json"]
    train_gpu.main(asked)
    said = capsys.readouterr().out.splitlines()
    found = json.loads(said[-1])
    assert len(said) == 1
    assert set(found["not_installed"]) <= {"trl-liger"}
    tiny = found["sizes"]["tiny"]
    assert tiny["failed"] == {}
    ours, theirs = (tiny["contenders"][name]["runs"][0] for name in ("studio", "trl"))
    assert ours["real"] == theirs["real"] == pytest.approx(ours["told_tokens"], rel=0.01)  # told rounded, as a rate
    assert ours["supervised"] == theirs["supervised"]
    assert ours["losses"] == pytest.approx(theirs["losses"], abs=0.02)
    assert "studio/trl" in found["ratios"]["tiny"]


@pytest.mark.skipif(hardware.detect().gpu is not None, reason="there is a GPU")
def test_without_a_gpu_only_the_dry_run_is_offered(capsys):
    with pytest.raises(SystemExit):
        train_gpu.main(["--sizes", "0.5b"])
    assert "--sizes tiny" in capsys.readouterr().err


def test_an_unknown_contender_is_told_with_those_that_there_are(capsys):
    with pytest.raises(SystemExit):
        train_gpu.main(["--contenders", "trl2"])
    assert "trl-liger" in capsys.readouterr().err
