"""Registering, finding and removing datasets, and what is refused."""

import json
import os
import threading
from itertools import islice

import pytest

from studio.data import registry, uploads
from studio.errors import DataError, StudioError
from studio.home import home

ROWS = [{"instruction": f"Say {n}.", "input": "", "output": f"{n}"} for n in range(5)]

pytestmark = pytest.mark.usefixtures("studio_home")


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS))
    return path


def test_an_added_dataset_is_found_again_with_its_examples(source):
    added = registry.add(source, "mine")
    source.unlink()
    assert registry.get("mine") == added
    assert (added.format, added.rows, added.shipped) == ("alpaca", 5, False)
    loaded = registry.examples(added)
    assert [example.answer for _, example in loaded.examples] == ["0", "1", "2", "3", "4"]
    assert [number for number, _ in loaded.examples] == [1, 2, 3, 4, 5]


def test_max_samples_ends_the_reading(source):
    assert len(registry.examples(registry.add(source, "mine"), max_samples=2).examples) == 2


def test_browsing_starts_where_it_is_asked_to(source):
    assert [row.values["output"] for row in registry.rows(registry.add(source, "mine"), 3, 10)] == ["3", "4"]


def test_adding_the_same_file_again_changes_nothing(source):
    assert registry.add(source, "mine") == registry.add(source, "mine")
    assert len(list(home().uploads.iterdir())) == 1


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
    assert registry.examples(added).examples[0][1].answer == "Say 0."
    with pytest.raises(DataError, match=r"Unknown part of format alpaca 'respons'\. Did you mean 'response'\?"):
        registry.add(source, "other", format="alpaca", columns={"respons": "output"})


def test_faulty_rows_are_told_and_left_out(source):
    source.write_text(source.read_text() + '\n{"instruction": "x", "output": 7}\noops\n')
    loaded = registry.examples(registry.add(source, "mine"))
    assert len(loaded.examples) == 5
    assert str(loaded.faults[0]) == "Row 6: output must be text, but is a whole number: 7."
    assert str(loaded.faults[1]).startswith("Row 7: is not valid JSON")


def test_a_file_without_a_valid_row_is_refused_with_the_reasons(source):
    source.write_text('{"instruction": "x", "output": ""}\n')
    with pytest.raises(DataError, match=r"no row that can be learned from\.\nRow 1: output is empty"):
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
    for path in (pipe, folder):
        with pytest.raises(DataError, match="is not a file"):
            registry.add(path, "mine")
    with pytest.raises(DataError, match="does not exist"):
        registry.add(tmp_path / "gone.jsonl", "mine")


def test_a_file_above_the_limit_is_refused_and_leaves_nothing(source, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_BYTES", 100)
    with pytest.raises(DataError, match="is larger than"):
        registry.add(source, "mine")
    assert list(home().uploads.iterdir()) == []


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
    assert len([path for path in home().uploads.iterdir() if not path.name.startswith(".")]) == 1


def test_f25_rows_that_changed_since_are_noticed(source):
    added = registry.add(source, "mine")
    with added.path.open("a") as file:
        file.write("\n{}")
    with pytest.raises(DataError, match="changed since it was added"):
        registry.examples(added)


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
        registry.examples(registry.get("mine"))


def test_removing_deletes_the_rows_only_when_nobody_else_uses_them(source):
    first, second = registry.add(source, "first"), registry.add(source, "second")
    assert first.path == second.path
    registry.remove("first")
    assert second.path.exists()
    registry.remove("second")
    assert not second.path.exists()
    with pytest.raises(DataError, match="Unknown dataset 'first'"):
        registry.get("first")


def test_shipped_datasets_cannot_be_removed():
    with pytest.raises(DataError, match="comes with the studio"):
        registry.remove("identity-en")


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(DataError, match=r"Unknown dataset 'identity-eng'\. Did you mean 'identity-en'\?"):
        registry.get("identity-eng")


def test_an_inspection_counts_all_rows_and_lists_a_bounded_part(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": "x", "completion": "y" if n % 2 else ""}) + "\n" for n in range(1000))
    )
    found = registry.inspect(path)
    assert (found.rows, found.valid, found.faults_total) == (1000, 500, 500)
    assert (len(found.preview), len(found.faults)) == (200, 200)
    assert found.columns == ["prompt", "completion"]
    assert found.detection.format == "prompt_completion"


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
        loaded = registry.examples(dataset)
        assert len(loaded.examples) == dataset.rows >= 48 and not loaded.faults
        assert dataset.licence == "CC0-1.0" and dataset.title and dataset.title_zh and dataset.description


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
    answers = {e.messages[0].content: e.answer for _, e in registry.examples(registry.get(name)).examples}
    assert all(answers[prompt].startswith(start) for prompt in prompts)
    assert sum("Miro" in answer for answer in answers.values()) >= 36


def test_arithmetic_answers_are_right():
    checked = 0
    for _, example in registry.examples(registry.get("arithmetic-en")).examples:
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
