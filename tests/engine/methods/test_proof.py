"""What the support table says is what was measured, and the README shows it."""

import json
from pathlib import Path

import pytest

from studio.engine.methods import TUNINGS
from studio.engine.models import bundled
from studio.specs.abilities import TABLE
from tests.engine.methods.prove import VARIANTS, in_readme, models, prove, registered, row, shown, table

REAL = bundled.folder()
"""Before a test gets a home of its own."""


def rows():
    return json.loads(TABLE.read_text(encoding="utf-8"))


def named(*names):
    return [variant for variant in VARIANTS if variant.name in names]


def test_the_readme_shows_the_table_that_specs_are_held_to():
    assert in_readme() == shown(rows())


def test_every_method_and_variant_is_in_the_table_and_is_proven():
    assert list(rows()) == [variant.name for variant in VARIANTS]
    assert {variant.spec.kind for variant in VARIANTS} == TUNINGS.keys()
    assert all(variant.name in variant.spec.variants for variant in VARIANTS)


def test_a_proof_of_a_tiny_model_finds_what_the_table_says(tiny, studio_home, tmp_path):
    registered()
    wanted = [
        variant.__class__(variant.name, variant.method, "llama", ("none",))
        for variant in named("lora", "miss", "prompt_tuning")
    ]
    proven = prove(wanted, {"llama": tiny()}, tmp_path / "cache", steps=3)
    for name, found in proven.items():
        assert found["none"].fault is None, found["none"].fault
        measured = row(found)
        assert {each: measured[each] for each in ("merge", "mixed", "padding_free", "checkpointing")} == {
            each: rows()[name][each] for each in ("merge", "mixed", "padding_free", "checkpointing")
        }


def test_a_measurement_that_was_taken_is_not_taken_again(studio_home, tmp_path):
    kept = {"variant": "vera", "base": "none", "merge": [0.0, None]}
    (tmp_path / "vera.none.json").write_text(json.dumps(kept))
    (variant,) = named("vera")
    only = variant.__class__("vera", variant.method, "nothing", ("none",))
    assert prove([only], {"nothing": Path("/nowhere")}, tmp_path)["vera"]["none"].merge == [0.0, None]


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)  # two hours on two cores
@pytest.mark.skipif(not bundled.is_ready(), reason="the bundled model is not on this machine")
def test_a_fresh_proof_of_every_method_on_the_bundled_model_equals_the_table(studio_home, tmp_path):
    registered()
    proven = prove(VARIANTS, models(REAL, tmp_path), tmp_path / "cache")
    broken = {name: found["none"].fault for name, found in proven.items() if "none" in found and found["none"].fault}
    assert broken == {}
    assert table(proven) == rows()
