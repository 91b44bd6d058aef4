"""Tiny models for the tests of the benchmarks. Not here: any timing."""

from tests.engine.conftest import tiny

__all__ = ["tiny"]
