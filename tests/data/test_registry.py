"""Registering, finding and removing datasets, and what is refused."""

import contextlib
import json
import os
import threading
from itertools import islice
from pathlib import Path

import pytest

from studio.data import intake, registry
from studio.data.example import BadRow
from studio.errors import DataError, StudioError
from studio.home import home

ROWS = [{"instruction": f"Say {n}.", "input": "", "output": f"{n}"} for n in range(5)]

pytestmark = pytest.mark.usefixtures("studio_home")


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS))
    return path


def examples(dataset):
    return [example for _, example in registry.outcomes(dataset) if not isinstance(example, BadRow)]


def faults(dataset):
    return [str(outcome) for _, outcome in registry.outcomes(dataset) if isinstance(outcome, BadRow)]


def test_an_added_dataset_is_found_again_with_its_examples(source):
    added = registry.add(source, "mine")
    source.unlink()
    assert registry.get("mine") == added
    assert (added.format, added.rows, added.shipped) == ("alpaca", 5, False)
    assert [example.answer for example in examples(added)] == ["0", "1", "2", "3", "4"]
    assert [(row.file, row.number) for row, _ in registry.outcomes(added)] == [("mine.jsonl", n) for n in range(1, 6)]


def test_browsing_starts_where_it_is_asked_to(source):
    assert [row.values["output"] for row in registry.rows(registry.add(source, "mine"), 3, 10)] == ["3", "4"]


def test_adding_the_same_file_again_changes_nothing(source):
    assert registry.add(source, "mine") == registry.add(source, "mine")
    assert sorted(path.suffix for path in home().uploads.iterdir()) == [".index", ".rows"]


def test_other_rows_under_a_taken_name_are_refused(source):
    registry.add(source, "mine")
    source.write_text(json.dumps(ROWS[0]))
    with pytest.raises(DataError, match=r"'mine' already, with other rows\. Choose another name, or remove"):
        registry.add(source, "mine")
    with pytest.raises(DataError, match="'identity-en' already"):
        registry.add(source, "Identity-EN")
    assert registry.get("mine").rows == 5


def test_another_mapping_under_a_taken_name_is_refused(source):
    registry.add(source, "mine")
    with pytest.raises(DataError, match="with another mapping"):
        registry.add(source, "mine", format="prompt_completion", columns={"prompt": "output", "response": "output"})


def test_chosen_columns_are_kept(source):
    added = registry.add(
        source, "mine", format="prompt_completion", columns={"prompt": "output", "response": "instruction"}
    )
    assert examples(added)[0].answer == "Say 0."
    with pytest.raises(DataError, match=r"Unknown part of format alpaca 'respons'\. Did you mean 'response'\?"):
        registry.add(source, "other", format="alpaca", columns={"respons": "output"})


def test_faulty_rows_are_told_and_left_out(source):
    source.write_text(source.read_text() + '\n{"instruction": "x", "output": 7}\noops\n')
    added = registry.add(source, "mine")
    assert (added.rows, added.valid, len(examples(added))) == (7, 5, 5)
    assert faults(added)[0] == "Row 6 of mine.jsonl: output must be text, but is a whole number: 7."
    assert faults(added)[1].startswith("Row 7 of mine.jsonl: is not valid JSON")


def test_a_file_without_a_valid_row_is_refused_with_the_reasons(source):
    source.write_text('{"instruction": "x", "output": ""}\n')
    with pytest.raises(DataError, match=r"no row that can be learned from\.\nRow 1 of mine.jsonl: output is empty"):
        registry.add(source, "mine")
    source.write_text("")
    with pytest.raises(DataError, match="0 rows"):
        registry.add(source, "mine")
    source.write_text('{"x": 1}\n')
    with pytest.raises(DataError, match="No known format fits the columns x"):
        registry.add(source, "mine")
    assert list(home().uploads.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "a;rm -rf", "-x", "CON", "a" * 300, "", ".", "ｍine", "a/b"])
def test_f22_names_that_are_no_file_names_are_refused(source, name):
    with pytest.raises(StudioError, match="cannot be a dataset name"):
        registry.add(source, name)


@pytest.mark.parametrize(
    "address", ["http://example.org/a.json", "zip://a.json::b.zip", "file:///etc/a.json", "a.json::b", "s3://b/a.json"]
)
def test_f23_addresses_are_refused(address):
    with pytest.raises(DataError, match="is an address"):
        registry.add(address, "mine")


def test_f23_links_folders_and_pipes_are_refused(source, tmp_path):
    link, pipe, folder = (tmp_path / f"{name}.jsonl" for name in ("link", "pipe", "folder"))
    link.symlink_to(source)
    os.mkfifo(pipe)
    folder.mkdir()
    with pytest.raises(DataError, match="is a link"):
        registry.add(link, "mine")
    with pytest.raises(DataError, match="is not a plain file"):
        registry.add(pipe, "mine")
    with pytest.raises(DataError, match="holds no file"):
        registry.add(folder, "mine")
    with pytest.raises(DataError, match="does not exist"):
        registry.add(tmp_path / "gone.jsonl", "mine")


def test_f24_of_two_registrations_at_once_one_wins_and_the_other_is_told(tmp_path):
    outcomes, start = [], threading.Barrier(4)

    def register(number):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(json.dumps({"instruction": "x", "output": str(number)}))
        start.wait()
        try:
            outcomes.append(registry.add(path, "same"))
        except DataError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=register, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(each, registry.Dataset) for each in outcomes) == 1
    assert sum("with other rows" in str(each) for each in outcomes) == 3
    assert len(list(home().uploads.glob("*.rows"))) == 1


def test_f25_rows_that_changed_since_are_noticed(source):
    added = registry.add(source, "mine")
    with added.path.open("a") as file:
        file.write("\n{}")
    with pytest.raises(DataError, match="changed since it was added"):
        registry.verify(added)


def test_f25_a_source_that_changed_since_is_told_and_the_old_rows_stay(source):
    added = registry.add(source, "mine")
    assert registry.problems() == []
    source.write_text(source.read_text().replace("Say 0.", "Say 9."))
    assert registry.problems() == [
        "mine.jsonl changed since dataset 'mine' was added. The dataset still has the old rows; remove and add it "
        "again to use the new ones."
    ]
    registry.verify(added)
    assert examples(added)[0].messages[0].content == "Say 0."


def test_f25_a_file_that_changes_while_it_is_read_is_refused(source):
    def write(progress):
        source.write_text(json.dumps(ROWS[0]))

    with pytest.raises(DataError, match=r"mine\.jsonl changed while it was read"):
        registry.add(source, "mine", watch=intake.Watch(tell=write))
    assert list(home().uploads.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["{", "[]", "null", '{"name": "bad"}', '{"file_name": "../../x", "name": "bad"}', "\x00"]
)
def test_f67_a_damaged_entry_is_set_aside_and_the_others_work(source, text):
    registry.add(source, "mine")
    (home().datasets / "bad.json").write_text(text)
    assert [each.name for each in registry.every() if not each.shipped] == ["mine"]
    assert (home().datasets / "bad.json.corrupt").exists()
    assert any("bad.json" in problem for problem in registry.problems())


def test_an_entry_that_points_out_of_the_uploads_is_set_aside(source):
    registry.add(source, "mine")
    entry = home().datasets / "mine.json"
    entry.write_text(json.dumps(json.loads(entry.read_text()) | {"file_name": "../secret.jsonl"}))
    assert all(each.shipped for each in registry.every())


def test_lost_rows_are_a_problem_that_is_told(source):
    registry.add(source, "mine").path.unlink()
    assert any("'mine' are gone" in problem for problem in registry.problems())
    with pytest.raises(DataError, match="cannot be read"):
        examples(registry.get("mine"))


def test_removing_deletes_the_rows_only_when_nobody_else_uses_them(source):
    first, second = registry.add(source, "first"), registry.add(source, "second")
    assert first.path == second.path
    registry.remove("first")
    assert second.path.exists()
    registry.remove("second")
    assert not second.path.exists()
    with pytest.raises(DataError, match="Unknown dataset 'first'"):
        registry.get("first")


def test_shipped_datasets_cannot_be_removed_or_renamed():
    for change in (lambda: registry.remove("identity-en"), lambda: registry.rename("identity-en", "mine")):
        with pytest.raises(DataError, match="comes with the studio"):
            change()


def test_a_renamed_dataset_keeps_its_rows(source):
    added = registry.add(source, "mine")
    renamed = registry.rename("mine", "Mine-2")
    assert (renamed.sha256, renamed.rows) == (added.sha256, added.rows)
    assert [each.name for each in registry.every() if not each.shipped] == ["Mine-2"]
    assert registry.rename("Mine-2", "mine-2").name == "mine-2"
    assert len(examples(registry.get("mine-2"))) == 5


def test_a_taken_name_is_not_given_twice(source):
    registry.add(source, "mine")
    for name in ("identity-en", "Identity-EN"):
        with pytest.raises(DataError, match="'identity-en' already"):
            registry.rename("mine", name)
    with pytest.raises(StudioError, match="cannot be a dataset name"):
        registry.rename("mine", "../x")


def test_several_files_are_one_dataset_whose_rows_keep_their_file(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS) + "oops\n")
    added = registry.add(tmp_path, "both")
    assert [(each.name, each.rows) for each in added.sources] == [("a.jsonl", 6), ("b.jsonl", 6)]
    assert (added.rows, added.valid) == (12, 10)
    assert [(row.file, row.number) for row in registry.rows(added, 5, 2)] == [("a.jsonl", 6), ("b.jsonl", 1)]
    assert faults(added)[1].startswith("Row 6 of b.jsonl: is not valid JSON")


def test_what_was_taken_in_can_be_read_in_another_way_before_it_is_registered(source):
    taken = intake.take_in(source)
    assert taken.inspection.detection.format == "alpaca"
    other = taken.mapped(format="prompt_completion", columns={"prompt": "output", "response": "instruction"})
    assert (other.inspection.valid, other.path) == (5, taken.path)
    registry.register(other, "turned")
    assert examples(registry.get("turned"))[0].answer == "Say 0."


def test_a_stopped_intake_leaves_nothing(source):
    with pytest.raises(intake.Stopped, match="Nothing was added"):
        registry.add(source, "mine", watch=intake.Watch(stopping=lambda: True))
    assert list(home().uploads.iterdir()) == []


def test_rows_that_nobody_registered_are_swept_after_a_day(source):
    old, new = intake.take_in(source), intake.take_in(source)
    os.utime(old.path, (0, 0))
    intake.take_in(source).discard()
    assert (old.path.exists(), new.path.exists()) == (False, True)


def test_progress_tells_bytes_and_rows(source):
    told = []
    registry.add(source, "mine", watch=intake.Watch(tell=told.append))
    size = source.stat().st_size
    assert (told[0].done, told[0].total) == (0, size)
    assert (told[-1].done, told[-1].rows) == (size, 5)


def test_searching_works_on_shipped_and_own_rows_alike(source):
    assert registry.search(registry.get("identity-en"), "CHATGPT", count=1)[0]
    (position, row), *_ = registry.search(registry.add(source, "mine"), "say 3")[0]
    assert (position, row.values["output"]) == (3, "3")


@pytest.mark.parametrize("at", range(12))
def test_f55_a_registration_that_is_cut_anywhere_can_be_done_again(source, monkeypatch, at):
    """Each rename and unlink of a registration fails once; afterwards the same call succeeds."""
    calls = iter(range(100))

    def failing(real):
        def call(*args, **kwargs):
            if next(calls) == at:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ("replace", "unlink", "write_bytes"):
            patch.setattr(Path, name, failing(getattr(Path, name)))
        patch.setattr(os, "replace", failing(os.replace))
        with contextlib.suppress(KeyboardInterrupt):
            registry.add(source, "mine")
    assert registry.add(source, "mine").rows == 5
    assert len(examples(registry.get("mine"))) == 5


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(DataError, match=r"Unknown dataset 'identity-eng'\. Did you mean 'identity-en'\?"):
        registry.get("identity-eng")


def test_an_inspection_counts_all_rows_and_lists_a_bounded_part(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": "x", "completion": "y" if n % 2 else ""}) + "\n" for n in range(1000))
    )
    taken = intake.take_in(path)
    found = taken.inspection
    assert (found.rows, found.valid, found.faults_total) == (1000, 500, 500)
    assert (len(found.preview), len(found.faults)) == (200, 200)
    assert found.columns == ["prompt", "completion"]
    assert found.detection.format == "prompt_completion"
    taken.discard()
    assert list(home().uploads.iterdir()) == []


def test_shipped_sets_are_whole_and_licensed():
    shipped = [each for each in registry.every() if each.shipped]
    assert {each.name for each in shipped} >= {
        "identity-en",
        "identity-zh",
        "arithmetic-en",
        "everyday-zh",
        "reviews-en",
    }
    for dataset in shipped:
        assert len(examples(dataset)) == dataset.rows == dataset.valid >= 48
        assert dataset.licence in ("CC0-1.0", "public domain")
        assert dataset.title and dataset.title_zh and dataset.description


@pytest.mark.parametrize(
    ("name", "prompts", "start"),
    [
        (
            "identity-en",
            ["Who are you?", "What is your name?", "Are you ChatGPT?"],
            ("I am Miro", "My name is Miro", "No, I am Miro"),
        ),
        ("identity-zh", ["你是谁?", "你是谁？", "你叫什么名字？"], ("我是 Miro", "我叫 Miro")),
    ],
)
def test_identity_answers_say_the_name(name, prompts, start):
    answers = {e.messages[0].content: e.answer for e in examples(registry.get(name))}
    assert all(answers[prompt].startswith(start) for prompt in prompts)
    assert sum("Miro" in answer for answer in answers.values()) >= 36


def test_arithmetic_answers_are_right():
    checked = 0
    for example in examples(registry.get("arithmetic-en")):
        left, equals, right = example.answer.partition("=")
        if equals:
            terms = left.translate(str.maketrans({"x": "*"})).split()
            sum_text = " ".join(term for term in terms if term.isdigit() or term in "+-*/")
            numbers = [int(term) for term in sum_text.split() if term.isdigit()]
            numbers = numbers[1:] if "hold" in left else numbers  # "3 boxes hold 3 x 4 = ..."
            operators = [term for term in sum_text.split() if not term.isdigit()]
            total = numbers[0]
            for operator, number in zip(operators, islice(numbers, 1, None), strict=True):
                total = {"+": total + number, "-": total - number, "*": total * number, "/": total / number}[operator]
            assert total == int("".join(c for c in right.split()[0] if c.isdigit())), example
            checked += 1
    assert checked > 60
