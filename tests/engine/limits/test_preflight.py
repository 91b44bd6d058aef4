"""One step on the longest rows, of which nothing is kept."""

import pytest

from studio.events import Preflight
from tests.engine.fast.conftest import mixed_lengths, run, spec_of  # noqa: F401

pytestmark = pytest.mark.usefixtures("studio_home")


def test_it_measures_the_longest_rows_and_leaves_the_run_as_it_was(tiny, mixed_lengths, run):  # noqa: F811
    dropping = {"method": {"kind": "lora", "rank": 4, "dropout": 0.2}, "training": {"optimizer": "adamw_torch"}}
    with_it = run(spec_of(tiny("llama"), mixed_lengths, **dropping))
    dropping["training"]["preflight"] = False
    without = run(spec_of(tiny("llama"), mixed_lengths, **dropping))
    assert with_it.losses == without.losses
    (told,) = [event for event in with_it.told if isinstance(event, Preflight)]
    assert told.seconds > 0 and told.peak_gib > 0 and told.seconds_in_all > 0
    assert told.tokens >= max(
        step.tokens_per_s * step.seconds for step in with_it.told if hasattr(step, "tokens_per_s")
    )
    assert not any(isinstance(event, Preflight) for event in without.told)
