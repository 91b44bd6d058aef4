"""Fixtures of the engine's tests, for the faults that training meets."""

from tests.engine.conftest import dataset, tiny  # noqa: F401
