"""The faults of rows and of registering them, by their number in the fault matrix, as somebody meets them.

Not here: reading files (test_data_reading), and names and sources that reach for more (test_intruding_sources).
"""

import json
import threading

import pytest

from studio.data import registry
from studio.data.audit import audit, report
from studio.data.example import BadRow
from studio.errors import DataError
from studio.events import Note, Phase
from studio.home import home
from studio.specs import AuditSpec, parse
from studio.templates import TextTokenizer
from tests.engine.test_train import spec

GOOD = {"instruction": "Say 1.", "output": "1"}


def faults(dataset):
    return [outcome for _, outcome in registry.outcomes(dataset) if isinstance(outcome, BadRow)]


def turns(*pairs):
    return {"messages": [{"role": role, "content": text} for role, text in pairs]}


def rows_that_teach(dataset):
    return dataset.valid


def test_f05_a_missing_response_names_its_field_and_suggests_the_column_that_fits(add):
    dataset = add([GOOD, {"instruction": "Say 2.", "answer": "2"}, GOOD])
    (told,) = faults(dataset)
    assert str(told).startswith("Row 2 of rows.jsonl: output is missing") and "answer" in told.reason
    assert (dataset.rows, rows_that_teach(dataset)) == (3, 2)


def test_f05_a_file_in_which_no_row_has_one_is_refused_with_the_columns_it_has(shell, tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"asked": 1, "said": 2}\n' * 3)
    status, _, err = shell("data", "add", str(tmp_path / "mine.jsonl"))
    assert status == 1 and "asked, said" in err
    assert all(each.shipped for each in registry.every()) and list(home().uploads.iterdir()) == []


@pytest.mark.parametrize("blank", ["", " \n\t", "\u3000"])
def test_f06_an_empty_response_is_a_fault_and_the_other_rows_are_kept(add, blank):
    dataset = add([GOOD, GOOD | {"output": blank}])
    (told,) = faults(dataset)
    assert (told.row, told.field) == (2, "output") and "is empty" in told.reason
    assert rows_that_teach(dataset) == 1


def test_f15_an_unknown_role_is_named_with_the_known_ones(add):
    dataset = add([turns(("user", "Hi"), ("assistant", "Hello")), turns(("wizard", "Hi"), ("assistant", "Hello"))])
    (told,) = faults(dataset)
    assert told.row == 2 and "'wizard'" in told.reason
    assert all(role in told.reason for role in ("system", "user", "assistant"))


def test_f16_a_conversation_without_an_answer_is_a_fault(add):
    dataset = add([turns(("user", "Hi"), ("assistant", "Hello")), turns(("system", "Be brief."), ("user", "Hi"))])
    (told,) = faults(dataset)
    assert told.row == 2 and "no assistant turn" in told.reason


def test_f17_in_a_file_of_mixed_shapes_the_majority_decides_and_the_rest_are_faults(add):
    dataset = add([GOOD, turns(("user", "Hi"), ("assistant", "Hello")), GOOD, {"text": "Once."}, GOOD])
    assert dataset.format == "alpaca" and rows_that_teach(dataset) == 3
    assert [told.row for told in faults(dataset)] == [2, 4]
    assert all("is missing" in told.reason for told in faults(dataset))


@pytest.fixture
def audited(tiny, tmp_path):
    """The report of an audit with a model."""

    def look(dataset, **values):
        place = tmp_path / "audit"
        place.mkdir()
        wanted = parse(AuditSpec, {"dataset": dataset.name, "model": str(tiny()), **values})
        told = []
        found = audit(
            wanted,
            tokenizer=TextTokenizer.from_folder(tiny()),
            report=place / "report.json",
            findings=place / "findings",
            emit=told.append,
            stopping=lambda: False,
        )
        notes = [event.text for event in told if isinstance(event, Note)]
        return report.Report.load(found), place / "findings", notes

    return look


LONG = {"instruction": "word " * 200, "output": "1"}


def test_f18_rows_whose_answer_is_cut_off_are_counted_in_the_audit(add, audited):
    told, findings, _ = audited(add([GOOD, LONG, GOOD]), max_length=48, truncation="cut_answer", near_duplicates=False)
    assert told.unsupervised == 1 and report.positions(findings, "unsupervised") == [1]


def test_f18_a_run_in_which_all_rows_are_so_is_refused_before_the_model_loads(tiny, add, run):
    name = add([LONG, LONG | {"output": "2"}]).name
    with pytest.raises(DataError, match=r"data\.max_length"):
        run(spec(tiny(), name, data={"max_length": 8}))
    assert "load" not in [event.name for event in run.of(Phase)]
    assert not run.checkpoints.exists() and not run.adapter.exists()


def test_f19_special_tokens_in_what_somebody_wrote_are_warned_of_and_encoded_as_text(tiny, add, run, audited):
    name = add([GOOD | {"instruction": "What is <|im_end|>?"}, GOOD]).name
    told, findings, _ = audited(registry.get(name), near_duplicates=False)
    assert told.special_tokens == 1 and report.positions(findings, "special_token") == [0]
    run(spec(tiny(), name, training={"max_steps": 1, "accumulation": 1}))
    said = [note.text for note in run.of(Note)]
    assert any(text.startswith("1 rows hold special tokens") and "plain text" in text for text in said)


@pytest.mark.parametrize("name", ["../x", "a;rm -rf", "-x", "CON", "n" * 300, "", ".", "ｍine", "a\u202eb"])
def test_f22_a_name_is_refused_with_the_allowed_pattern_wherever_it_is_given(add, shell, tmp_path, name):
    add([GOOD])
    before = {path.name: path.read_bytes() for path in home().datasets.iterdir() if path.is_file()}
    for arguments in (
        ("data", "add", str(tmp_path / "rows.jsonl"), f"--name={name}"),
        ("data", "rename", "rows", "--", name),
        ("templates", "add", f"--name={name}", str(tmp_path / "rows.jsonl")),
    ):
        status, _, err = shell(*arguments)
        assert status != 0 and "Use 1 to 64 letters, digits, dots, dashes or underscores" in err, arguments
    if name:  # without one a run is called like its dataset
        status, _, err = shell("train", "--set", "data.datasets=rows", "--set", f"output.name='{name}'")
        assert status == 1 and ("output.name: " in err or "Use 1 to 64 letters" in err)
        assert not any(path.is_dir() for path in home().jobs.iterdir())
    assert {path.name: path.read_bytes() for path in home().datasets.iterdir() if path.is_file()} == before


def test_f24_of_two_registrations_of_one_name_one_wins_and_the_other_is_told(studio_home, tmp_path):
    told, start = {}, threading.Barrier(2)

    def register(number):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(json.dumps(GOOD | {"output": str(number)}))
        start.wait()
        try:
            told[number] = registry.add(path, "same")
        except DataError as error:
            told[number] = error

    threads = [threading.Thread(target=register, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (won,) = (each for each in told.values() if isinstance(each, registry.Dataset))
    (lost,) = (each for each in told.values() if not isinstance(each, registry.Dataset))
    assert "There is a dataset 'same' already, with other rows. Choose another name" in str(lost)
    registry.verify(won)
    assert registry.get("same") == won and [path.name for path in home().uploads.glob("*.rows")] == [won.path.name]


def test_f25_a_file_that_changes_after_it_was_registered_is_noticed_and_its_run_keeps_the_old_hash(
    tiny, add, run, tmp_path, audited
):
    dataset = add([GOOD, GOOD | {"output": "2"}])
    run(spec(tiny(), dataset.name, training={"max_steps": 1, "accumulation": 1}))
    (tmp_path / "rows.jsonl").write_text(json.dumps(GOOD) * 2)
    assert any("rows.jsonl changed since dataset 'rows' was added" in told for told in registry.problems())
    assert any("rows.jsonl changed since" in note for note in audited(dataset, near_duplicates=False)[2])
    assert json.loads(run.record.read_text())["data"] == {"rows": dataset.sha256}
    registry.verify(dataset)


def test_f25_rows_that_change_during_a_run_are_noticed_when_it_goes_on(tiny, add, run):
    dataset = add([GOOD | {"output": str(number)} for number in range(8)])
    wanted = spec(tiny(), dataset.name, training={"max_steps": 4, "accumulation": 1, "save_steps": 1})
    assert run(wanted, stop_at=2) is None
    kept = {path: path.read_bytes() for path in run.checkpoints.rglob("*") if path.is_file()}
    with dataset.path.open("ab") as file:
        file.write(b'{"instruction": "Say 9.", "output": "9"}\n')
    with pytest.raises(DataError, match=r"dataset 'rows' changed since it was added"):
        run(wanted)
    assert {path: path.read_bytes() for path in run.checkpoints.rglob("*") if path.is_file()} == kept
    assert json.loads(run.record.read_text())["data"] == {"rows": dataset.sha256}
