import pytest

from studio import presets, specs
from studio.errors import StudioError


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_a_valid_spec_and_says_what_it_is_for(name):
    text = presets.text(name)
    assert text.startswith("# ")
    assert presets.described()[name].endswith(".")
    specs.parse(specs.TrainSpec, specs.read_yaml(text, name))


def test_the_first_run_is_there():
    assert "identity" in presets.names()


def test_an_unknown_preset_suggests_the_nearest():
    with pytest.raises(StudioError, match="Did you mean 'identity'"):
        presets.text("identiy")
