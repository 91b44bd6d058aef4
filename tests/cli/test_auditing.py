"""`studio data audit`, `derive` and `split`, with real audits in processes of their own."""

import json

import pytest

from studio.cli import auditing, main
from studio.cli.session import Session
from studio.data import derive, registry
from studio.data.audit import Report
from studio.events import Ended
from tests.cli.test_cli import run

FIGURES = {
    *("id", "folder", "dataset", "rows", "valid", "faults", "faults_total", "duplicates", "near_duplicates"),
    *("conflicts", "leaked", "truncated", "unsupervised", "special_tokens", "classes", "tokens", "settings"),
}
TOTAL = {"sum": 900, "mean": 90.0, "min": 8, "p50": 80, "p90": 120, "p95": 140, "p99": 150, "max": 151}


def studio(capsys, *arguments):
    """(exit status, stdout, stderr) of one command whose jobs are real."""
    with pytest.raises(SystemExit) as ended:
        main(arguments, session=Session())
    told = capsys.readouterr()
    return ended.value.code or 0, told.out, told.err


@pytest.fixture
def words(studio_home, tmp_path):
    """Six rows of two classes: one faulty, one the repetition of another."""
    said = [("good", "a fine day"), ("bad", "rain again"), ("good", "a fine day"), ("good", ""), ("bad", "hail")]
    rows = [{"text": text, "label": label} for label, text in [*said, ("good", "sun and wind")]]
    path = tmp_path / "words.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return registry.add(path, "words").name


def report(**figures) -> Report:
    given = {
        "dataset": "words",
        "sha256": "",
        "format": "text",
        "rows": 10,
        "valid": 9,
        "faults_total": 1,
        "faults": [{"file": "w.txt", "row": 4, "field": "text", "reason": "is empty."}],
        "warnings": [],
        "duplicates": 2,
        "near_duplicates": None,
        "near_rows": 0,
        "conflicts": 0,
        "leaked": None,
        "special_tokens": None,
        "truncated": None,
        "unsupervised": None,
        "unwritable": None,
        "classes": None,
        "tokens": None,
        "settings": {},
        "seconds": 1.25,
        "rows_per_s": 8.0,
    }
    return Report(**(given | figures))


def test_audit_with_json_prints_the_whole_report_and_nothing_else(words, capsys):
    status, out, err = studio(capsys, "data", "audit", words, "--no-near", "--json")
    told = json.loads(out)
    assert status == 0, err
    assert set(told) >= FIGURES
    assert (told["rows"], told["valid"], told["duplicates"], told["near_duplicates"]) == (6, 5, 1, None)
    assert [(fault["row"], fault["field"]) for fault in told["faults"]] == [(4, "text")]
    assert told["classes"] == {"good": 3, "bad": 2}
    assert told["settings"]["near_duplicates"] is False


def test_what_an_audit_found_is_shown_and_left_out_of_a_new_dataset(words, capsys):
    status, out, err = studio(capsys, "data", "audit", words, "--set", "similarity=0.9")
    assert status == 0, err
    assert "duplicates:       1\n" in out
    assert "row 4 of words.jsonl: text" in out
    assert "studio data show words --finding fault|duplicate" in err
    shown = json.loads(studio(capsys, "data", "show", words, "--finding", "duplicate", "--json")[1])["preview"]
    assert [(row["position"], row["partner"]) for row in shown] == [(2, 0)]
    assert "  duplicate of position 0\n" in studio(capsys, "data", "show", words, "--finding", "duplicate")[1]
    assert "There is no such row." in studio(capsys, "data", "show", words, "--finding", "near_duplicate")[2]
    made = studio(capsys, "data", "derive", words, "drop_duplicates", "--name", "once")
    assert made[1] == "once: 5 rows of the 6 of words\n"
    assert registry.get("once").origin["from"] == words
    assert registry.get(words).rows == 6


def test_an_audit_of_other_rows_is_not_used(words, capsys):
    assert studio(capsys, "data", "audit", words, "--json")[0] == 0
    assert studio(capsys, "data", "derive", words, "drop_faulty", "--name", "whole")[0] == 0
    status, _, err = studio(capsys, "data", "show", "whole", "--finding", "duplicate")
    assert status == 1
    assert "First: studio data audit whole" in err


def test_the_audit_that_looked_for_a_finding_is_used_though_a_newer_one_did_not(words, capsys):
    first = json.loads(studio(capsys, "data", "audit", words, "--json")[1])
    second = json.loads(studio(capsys, "data", "audit", words, "--no-near", "--json")[1])
    assert auditing.newest(registry.get(words), "near_duplicate").id == first["id"]
    assert auditing.newest(registry.get(words), "duplicate").id == second["id"]


def test_an_unknown_finding_or_remedy_is_met_with_the_nearest_name(words, capsys):
    assert "Did you mean 'duplicate'?" in studio(capsys, "data", "show", words, "--finding", "duplicates")[2]
    assert "Did you mean 'balance'?" in studio(capsys, "data", "derive", words, "balanse", "--name", "x")[2]
    assert auditing.REMEDIES.rstrip(".").replace(" or ", ", ").split(", ") == list(derive.REMEDIES)


def test_a_sample_has_as_many_rows_as_asked_for(words, capsys):
    status, out, _ = studio(capsys, "data", "derive", words, "sample", "--rows", "2", "--name", "two", "--json")
    assert status == 0
    assert json.loads(out)["rows"] == 2


def test_split_cuts_a_dataset_into_sets_without_common_rows(words, capsys):
    parts = ("--shares", "0.6,0.4", "--names", "most,rest")
    status, out, err = studio(capsys, "data", "split", words, *parts, "--json")
    assert status == 0, err
    assert [each["name"] for each in json.loads(out)] == ["most", "rest"]
    texts = [{row.values["text"] for row in registry.read(registry.get(name))} for name in ("most", "rest")]
    assert not texts[0] & texts[1]
    assert "'many' is not a share" in studio(capsys, "data", "split", words, "--shares", "many", "--names", "a")[2]


def test_an_unknown_dataset_or_a_wrong_field_is_refused_before_a_job_starts(studio_home, capsys):
    status, out, err = studio(capsys, "data", "audit", "identity-em", "--json")
    assert status == 1
    assert set(json.loads(out)) == {"error"}
    assert "Did you mean 'identity-en'?" in err
    assert "similarity" in studio(capsys, "data", "audit", "identity-en", "--set", "similarity=7")[2]
    assert not list((studio_home / "jobs").glob("audit-*"))


def test_a_failed_audit_exits_with_1_and_says_why_on_both_streams(studio_home, capsys):
    events = [Ended(state="failed", message="The rows are gone.")]
    status, out, err = run(capsys, "data", "audit", "identity-en", "--json", events=events)
    assert status == 1
    assert json.loads(out)["error"] == "The rows are gone."
    assert "The rows are gone." in err


def test_a_stopped_audit_exits_with_2(studio_home, capsys):
    assert run(capsys, "data", "audit", "identity-en", events=[Ended(state="stopped")])[0] == 2


def test_the_summary_tells_tokens_with_their_units_and_leaves_out_what_was_not_looked_for():
    tokens = {
        "total": TOTAL,
        "model": "tiny",
        "template": "chatml",
        "max_length": 512,
        "supervised": 450,
        "supervised_share": 0.5,
        "steps_per_epoch": 2,
    }
    lines = list(auditing.summary(report(tokens=tokens, truncated=3)))
    assert "tokens:           900 (tiny, template chatml)" in lines
    assert "tokens a row:     mean 90, p50 80, p95 140, p99 150, max 151; cutoff 512" in lines
    assert "learned:          450 tokens, 50 %" in lines
    assert "truncated:        3" in lines
    assert not any("near" in line or "leaked" in line for line in lines)
    assert lines[-1] == "row 4 of w.txt: text is empty."


def test_many_classes_are_cut_with_their_number():
    (line,) = (each for each in auditing.summary(report(classes={f"c{n}": 9 for n in range(15)})) if "classes" in each)
    assert line.endswith("c11 9 and 3 more")
