import json
import time
from types import SimpleNamespace

import pytest

from studio.data import registry
from studio.errors import DataError
from studio.ui.tabs import data
from studio.ui.waiting import while_working


@pytest.fixture
def request_(studio_home):
    return SimpleNamespace(query_params={}, headers={"accept-language": "en"})


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.jsonl"
    rows = [{"question": f"q{n}", "answer": f"a{n}", "hint": "h"} for n in range(45)]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def width():
    return len(data.PARTS) + 9


def test_pages_of_rows_stay_inside_the_dataset(request_):
    for start, expected in ((-20, 0), (0, 0), (20, 20), (40, 40), (60, 40), (10_000, 40)):
        assert data._shown("identity-en", start, request_)[-1] == expected


def test_a_shipped_dataset_cannot_be_removed_from_the_page(request_):
    remove = data._shown("identity-en", 0, request_)[10]
    assert remove["visible"] is False


def test_rows_that_are_gone_are_told_in_their_place(request_, file):
    registry.add(file, "mine").path.unlink()
    updates = data._shown("mine", 0, request_)
    assert "cannot be read" in updates[5] and updates[9]["interactive"] is False


def test_looking_at_a_file_offers_its_columns(request_, file):
    (update,) = data._look(str(file), None, None, request_, width())
    parts = dict(zip(data.PARTS, update[5 : 5 + len(data.PARTS)], strict=True))
    assert parts["prompt"]["value"] == "question"
    assert [value for _, value in parts["response"]["choices"]] == ["question", "answer", "hint"]
    assert [value for _, value in parts["system"]["choices"]] == ["question", "answer", "hint", ""]
    assert parts["messages"]["visible"] is False


def test_another_mapping_is_what_is_registered(request_, file):
    chosen = data._mapping("prompt_completion", ["hint" if part == "prompt" else None for part in data.PARTS])
    assert chosen == {"prompt": "hint", "response": "", "system": ""}
    chosen |= {"response": "question"}
    *_, updates = data._register(str(file), " mine ", "prompt_completion", chosen, request_, 13)
    assert updates[0] == "" and updates[1] is None
    dataset = registry.get("mine")
    assert dataset.columns == {"prompt": "hint", "response": "question"}
    assert registry.examples(dataset).examples[0][1].answer == "q0"


def test_a_part_can_be_played_by_no_column(tmp_path, studio_home):
    path = tmp_path / "a.json"
    path.write_text('[{"instruction": "a", "input": "b", "output": "c"}]', encoding="utf-8")
    dataset = registry.add(path, "a", format="alpaca", columns={"query": ""})
    ((_, example),) = registry.examples(dataset).examples
    assert example.messages[0].content == "a"


def test_a_refused_registration_is_told_beside_the_button(request_, file):
    (update,) = data._register(str(file), "identity-en", "prompt_completion", {}, request_, 13)
    assert "There is a dataset" in update[0] and "Choose another name" in update[0]


def test_a_file_that_cannot_be_read_leaves_the_dataset_in_sight(request_, tmp_path):
    path = tmp_path / "latin.csv"
    path.write_bytes("prompt,completion\ncafé,x\n".encode("latin-1"))
    (update,) = data._look(str(path), None, None, request_, width())
    assert "is not UTF-8" in update[0]
    assert update[1]["visible"] is True and update[2]["visible"] is False


def test_use_in_training_refuses_a_dataset_that_is_gone(studio_home):
    assert data.in_training("identity-en")["data.datasets"]["value"] == ["identity-en"]
    with pytest.raises(DataError, match="Unknown dataset"):
        data.in_training("was-here")


def test_slow_work_tells_that_it_goes_on_and_quick_work_does_not():
    def run(seconds):
        def work():
            time.sleep(seconds)
            return "done"

        told = []

        def drive():
            result = yield from while_working(work, lambda so_far: so_far)
            told.append(result)

        return list(drive()), told

    assert run(0) == ([], ["done"])
    ticks, told = run(0.8)
    assert len(ticks) >= 1 and told == ["done"]


def test_what_the_work_raises_is_raised():
    def work():
        raise DataError("no")

    with pytest.raises(DataError):
        list(while_working(work, lambda _: None))
