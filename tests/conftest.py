"""Fixtures that every room's tests share. Not here: what only one room needs."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from studio.hardware import thread_environment

os.environ.update(thread_environment())  # before torch is imported: workers run beside the tests on the same cores
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # every core has a test of its own

# the same examples each time, so that a red run is red again; HYPOTHESIS_PROFILE=explore looks for new ones
settings.register_profile("same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture
def studio_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh STUDIO_HOME of this test's own."""
    home = tmp_path / "home"
    monkeypatch.setenv("STUDIO_HOME", str(home))
    return home
