"""Fixtures that every room's tests share. Not here: what only one room needs."""

import os
from pathlib import Path

import pytest

from studio.hardware import thread_environment

os.environ.update(thread_environment())  # before torch is imported: workers run beside the tests on the same cores


@pytest.fixture
def studio_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh STUDIO_HOME of this test's own."""
    home = tmp_path / "home"
    monkeypatch.setenv("STUDIO_HOME", str(home))
    return home
