import pytest

from studio.data import registry
from studio.jobs.monitor import Monitor
from studio.ui import audits
from tests.ui.audited import audited, register


@pytest.fixture
def flawed(studio_home, tmp_path):
    return register(tmp_path)


def newest(dataset):
    return audits.newest(Monitor().refresh(), dataset)


def test_the_newest_audit_of_the_present_rows_is_found(flawed):
    assert newest(flawed) is None
    audited("flawed")
    second = audited("flawed", near_duplicates=False)
    assert newest(flawed).view.id == second.id


def test_an_audit_follows_its_dataset_to_another_name(flawed):
    folder = audited("flawed")
    assert newest(registry.rename("flawed", "renamed")).view.id == folder.id


def test_an_audit_of_rows_that_are_read_in_another_way_is_not_told(flawed, tmp_path):
    audited("flawed")
    registry.remove("flawed")
    columns = {"prompt": "completion", "response": "prompt"}
    other = registry.add(tmp_path / "flawed.jsonl", "flawed", format="prompt_completion", columns=columns)
    assert other.sha256 == flawed.sha256 and newest(other) is None


def test_a_damaged_audit_leaves_an_older_one_in_sight(flawed):
    first, second = audited("flawed"), audited("flawed")
    second.report.write_text("{", encoding="utf-8")
    assert newest(flawed).view.id == first.id


def test_each_row_says_in_words_what_was_found_in_it(flawed):
    audited("flawed")
    audit = newest(flawed)
    assert set(audit.kinds) == {"fault", "duplicate", "near_duplicate", "conflict"}
    words = audits.words(audit, range(8), "en")
    assert words[1] == ("repeats row 1",)
    assert words[3] == ("answers otherwise than row 3",)
    assert words[5] == ("nearly repeats row 5",)
    assert words[6] == () and words[7] == ()
    assert audit.positions("duplicate", 0, 20) == [1]


def test_a_leak_names_the_other_dataset(flawed, tmp_path):
    register(tmp_path, "exam")
    audited("flawed", against="exam")
    assert "also row 1 of exam" in audits.words(newest(flawed), [0], "en")[0]
