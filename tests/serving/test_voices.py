"""Which names can answer in a chat, and which of them fit together."""

from dataclasses import replace

import pytest

from studio.errors import JobError, ServingError
from studio.jobs.monitor import view_of
from studio.serving import voices
from tests.examples import finished_run


def test_a_finished_run_offers_its_adapter_and_then_its_checkpoints_newest_first(studio_home):
    folder = finished_run(checkpoints=[12, 24])
    names = [voice.model for voice in voices.of_run(view_of(folder))]
    assert names == [folder.id, f"{folder.id}@24", f"{folder.id}@12"]


def test_a_run_that_has_not_finished_offers_only_checkpoints(studio_home):
    view = replace(view_of(finished_run()), state="running", has_adapter=False, saved=(12,))
    assert [voice.label for voice in voices.of_run(view)] == [f"{view.id} · step 12"]


def test_no_name_is_the_bundled_base(studio_home):
    assert voices.find(None) == voices.base()


def test_a_run_is_found_with_what_it_was_trained_on(studio_home):
    folder = finished_run(sets=["model.name=some/model", "quantization.kind=none"])
    voice = voices.find(folder.id)
    assert (voice.base, voice.quantization) == ("some/model", "none")


def test_a_run_on_another_base_than_the_named_one_is_refused(studio_home):
    folder = finished_run()
    with pytest.raises(ServingError, match="was trained on smollm2-135m-instruct, not on other"):
        voices.find(folder.id, base="other")


@pytest.mark.parametrize("name", ["nothing", "../jobs", "nothing@3"])
def test_a_run_that_does_not_exist_is_refused(studio_home, name):
    with pytest.raises(JobError, match="Unknown job"):
        voices.find(name)


def test_two_adapters_of_one_base_fit_together_and_say_what_to_serve():
    base = voices.base("m")
    one = voices.Voice("a", "m", quantization="nf4")
    two = voices.Voice("b@3", "m")
    assert voices.together([base, one]) is one
    assert voices.together([one, two]) is one
    assert voices.together([base, base]) == base


def test_two_bases_do_not_fit_together():
    with pytest.raises(ServingError, match="one chat holds one base in memory"):
        voices.together([voices.Voice("a", "m"), voices.Voice("b", "n")])


def test_precision_follows_the_choice():
    voice = voices.Voice("a", "m", quantization="nf4")
    assert (voice.precision(True), voice.precision(False)) == ("nf4", "none")
