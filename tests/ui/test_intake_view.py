import json
from dataclasses import replace

import pytest

from studio.data import faults, intake
from studio.data.imports import Outcome
from studio.data.intake import Progress
from studio.ui import intake_view
from tests.ui.markup import Tags
from tests.ui.recorded import HOSTILE


@pytest.fixture
def take(studio_home, tmp_path):
    def taken(rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
        return intake.take_in(path, uploaded=True)

    return taken


def told(taken):
    found = taken.inspection
    return intake_view.faults(found, faults.rows(taken.path, taken.sources, found.faults), "en")


GOOD = {"prompt": "a", "completion": "b"}


def test_what_was_understood_has_certainty_reason_mapping_and_counts(take):
    text = Tags(intake_view.understood(take([GOOD] * 3 + [{"prompt": "a"}]), "en")).text
    assert "rows.jsonl reads as prompt_completion" in text
    assert "Columns: prompt → Prompt, completion → Answer." in text
    assert "3 of 4 rows can be learned from." in text


def test_a_file_whose_name_differs_from_its_content_is_told(take):
    taken = take(["prompt,completion", "a,b", "c,d"], name="rows.jsonl")
    assert "rows.jsonl" in Tags(intake_view.understood(taken, "en")).text
    assert "note" in intake_view.understood(taken, "en")


def test_faults_stand_with_their_row_their_field_and_its_text(take):
    text = Tags(told(take([GOOD, '{"prompt": ', GOOD, {"prompt": "lonely"}]))).text
    assert "2 rows would be left out" in text
    assert '{"prompt":' in text and '{"prompt": "lonely"}' in text and "completion" in text


def test_only_the_first_faults_are_listed_and_the_rest_counted(take):
    count = intake_view.SHOWN_FAULTS + 30
    markup = told(take([GOOD] * 200 + [{"prompt": "a", "completion": None}] * count))
    assert markup.count("<tr><td>") == intake_view.SHOWN_FAULTS
    assert "and 30 more" in markup


def test_no_fault_is_no_table(take):
    assert told(take([GOOD])) == ""


def test_progress_tells_percent_size_and_rows_with_a_bar():
    markup = intake_view.progress("big.jsonl", Progress(25_000_000, 100_000_000, 61_234), 2, "en")
    assert "25%" in markup and "25.0 / 100.0 MB" in markup and "61,234 rows" in markup and "value='0.2500'" in markup


def test_progress_of_unknown_length_counts_rows_and_shows_no_share():
    markup = intake_view.progress("a/b", Progress(0, 0, 3000), 2, "en")
    assert "3,000 rows" in markup and "%" not in Tags(markup).text and "value=" not in markup


def test_entries_of_a_folder_are_told_with_their_reason(take):
    text = Tags(intake_view.outcomes([Outcome("gone", None, "does not exist.")], "en")).text
    assert "0 of 1 entries were registered." in text and "gone" in text and "does not exist." in text


def test_markup_in_files_stays_text(take):
    taken = take([{"prompt": HOSTILE, "completion": HOSTILE}, {"prompt": HOSTILE, "completion": [HOSTILE]}])
    hostile = replace(taken, title=HOSTILE)
    for markup in (
        intake_view.understood(hostile, "en"),
        told(taken),
        intake_view.progress(HOSTILE, None, 1, "en"),
        intake_view.outcomes([Outcome(HOSTILE, None, HOSTILE)], "en"),
    ):
        parsed = Tags(markup)
        assert "<img src=x" in parsed.text and "img" not in parsed.tags
