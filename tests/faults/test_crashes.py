"""A job that is killed at any change of a file goes on to the outcome of one that was not (tests.faults.crashing)."""

import json
import os
import subprocess
import sys

import pytest

from studio.home import CHECKOUT


def swept(*arguments):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("STUDIO_", "OMP_"))}
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.crashing", *arguments],
        cwd=CHECKOUT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("kind", "harm", "every", "first"),
    [("train", "kill", 37, 17), ("train", "tear", 61, 40), ("train", "term", 67, 50), ("register", "kill", 1, 1)],
)
def test_f55_f56_a_few_points_of_the_sweep(kind, harm, every, first):
    found = swept(kind, "--harm", harm, "--every", str(every), "--first", str(first))
    assert found["tried"] >= 2 and found["differing"] == {}


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["kill", "tear", "term"])
@pytest.mark.parametrize("kind", ["train", "evaluate", "export", "register"])
def test_f55_f56_every_point(kind, harm):
    found = swept(kind, "--harm", harm)
    assert found["tried"] == found["points"] > 5 and found["differing"] == {}
