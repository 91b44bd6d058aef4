"""One audit, whole: what the report says of rows that are known to be wrong, and where it says they are."""

import json

import numpy as np
import pytest

from studio.data import registry
from studio.data.audit import Report, report
from studio.errors import DataError, SpecError
from studio.events import Note, Phase
from studio.specs import AuditSpec, parse
from tests.data.conftest import asks

STORY = "Once upon a time a small fox lived at the edge of a wide dark wood and watched the moon rise over the hills"


def test_each_finding_is_counted_and_found_at_its_row(add, audited):
    rows = [
        asks("Capital of France?", "Paris."),
        asks("Tell a story.", STORY),
        asks("Capital of France?", "Paris."),
        '{"instruction": "cut off',
        asks("Capital of France?", "Lyon."),
        asks("Tell a story.", STORY.replace("hills", "roofs")),
        asks("Say nothing.", ""),
    ]
    found = audited(add("mixed", rows))
    told = found.report
    assert (told.rows, told.valid, told.faults_total, told.format) == (7, 5, 2, "alpaca")
    assert (told.duplicates, told.near_duplicates, told.conflicts, told.near_rows) == (1, 1, 5, 4)
    assert report.positions(found.findings, "fault") == [3, 6]
    assert report.positions(found.findings, "duplicate") == [2]
    assert report.partner(found.findings, "duplicate", 2) == 0
    assert report.partner(found.findings, "near_duplicate", 5) == 1
    assert report.at(found.findings, 2) == {"duplicate": 0, "conflict": 4}
    assert report.at(found.findings, 3) == {"fault": None}
    similarity = np.load(found.findings / "similarity.npy", allow_pickle=False)
    assert len(similarity) == 1 and 0.8 <= similarity[0] < 1


def test_all_faults_are_kept_with_the_text_of_their_rows(add, audited):
    rows = [asks("a", "b"), *({"instruction": f"q{number}", "output": number} for number in range(300))]
    found = audited(add("faulty", rows, format="alpaca"))
    lines = [json.loads(line) for line in (found.findings / "faults.jsonl").read_text().splitlines()]
    assert (found.report.faults_total, len(found.report.faults), len(lines)) == (300, 200, 300)
    assert found.report.faults[0].keys() == {"file", "row", "field", "reason"}
    assert (lines[-1]["file"], lines[-1]["row"], lines[-1]["position"]) == ("faulty.jsonl", 301, 300)
    assert json.loads(lines[-1]["text"]) == rows[-1]


def test_without_a_model_nothing_is_said_of_tokens_and_without_another_set_nothing_of_leaks(add, audited):
    found = audited(add("plain", [asks("a", "b")]), near_duplicates=False)
    told = found.report
    nothing = (told.tokens, told.truncated, told.unsupervised, told.unwritable, told.special_tokens)
    assert nothing == (None,) * 5 and told.leaked is None and told.near_duplicates is None
    assert report.looked_for(found.findings) == ["fault", "duplicate", "conflict"]
    with pytest.raises(DataError, match="did not look for leak. Name the other dataset"):
        report.positions(found.findings, "leak")
    with pytest.raises(DataError, match="Did you mean 'leak'"):
        report.positions(found.findings, "leek")


def test_classes_are_counted_the_most_frequent_first(add, audited):
    rows = [{"text": f"text {number}", "label": "spam" if number % 3 == 0 else "ham"} for number in range(10)]
    found = audited(add("sorted", rows, format="classification"))
    assert list(found.report.classes.items()) == [("ham", 6), ("spam", 4)]


def test_the_report_is_read_back_as_it_was_written(add, audited, tmp_path):
    found = audited(add("plain", [asks("a", "b")]), similarity=0.9)
    path = tmp_path / "audit-plain" / "report.json"
    assert Report.load(path) == found.report and found.report.settings["similarity"] == 0.9
    path.write_text('{"dataset": "plain"}')
    with pytest.raises(DataError, match="no report of an audit"):
        Report.load(path)


def test_findings_are_about_the_rows_that_were_audited_and_about_how_they_are_read(add, audited):
    dataset = add("plain", [asks("a", "b"), {**asks("c", "d"), "other": "e"}])
    found = audited(dataset)
    assert report.are_about(found.findings, dataset)
    registry.remove("plain")
    again = add("plain", [asks("a", "b"), {**asks("c", "d"), "other": "e"}], columns={"query": "other"})
    assert again.sha256 == dataset.sha256 and not report.are_about(found.findings, again)


def test_a_stopped_audit_leaves_nothing_behind(add, audited, tmp_path):
    dataset = add("plain", [asks(f"q{number}", "a") for number in range(50)])
    assert audited(dataset, stopping=lambda: True) is None
    assert list((tmp_path / "audit-plain").iterdir()) == []


def test_what_a_killed_audit_left_is_cleared_away(add, audited, tmp_path):
    (tmp_path / "audit-plain" / ".audit-left").mkdir(parents=True)
    audited(add("plain", [asks("a", "b")]))
    assert sorted(path.name for path in (tmp_path / "audit-plain").iterdir()) == ["findings", "report.json"]


def test_a_second_audit_in_one_folder_replaces_the_first(add, audited, byte_tokenizer):
    dataset = add("plain", [asks("a", "b")])
    audited(dataset, tokenizer=byte_tokenizer, model="tiny")
    assert "truncated" not in report.looked_for(audited(dataset).findings)


def test_progress_is_told_for_each_stage_up_to_its_end(add, audited):
    rows = [asks(f"Question number {number}?", f"Answer number {number % 3}.") for number in range(40)]
    phases = [event for event in audited(add("plain", rows)).events if isinstance(event, Phase)]
    assert {(each.done, each.total) for each in phases if each.name == "read"} == {(0, 40), (40, 40)}
    assert phases[-1].name == "compare" and phases[-1].done == phases[-1].total


def test_f25_rows_that_changed_since_they_were_registered_are_refused(add, audited):
    dataset = add("plain", [asks("a", "b")])
    dataset.path.write_bytes(dataset.path.read_bytes().replace(b'"b"', b'"c"'))
    with pytest.raises(DataError, match="'plain' changed since it was added"):
        audited(dataset)


def test_f25_a_file_that_changed_since_is_a_warning(add, audited, tmp_path):
    dataset = add("plain", [asks("a", "b")])
    (tmp_path / "plain.jsonl").write_text(json.dumps(asks("a", "c")))
    found = audited(dataset)
    assert found.report.warnings[0].startswith("plain.jsonl changed since")
    assert [event.text for event in found.events if isinstance(event, Note)] == found.report.warnings


def test_a_dataset_is_not_compared_with_itself():
    with pytest.raises(SpecError, match="against: is the dataset itself"):
        parse(AuditSpec, {"dataset": "one", "against": "one"})
