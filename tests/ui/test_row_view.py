import json

import pytest

from studio.data.example import Row
from studio.data.formats import Detection, detect
from studio.ui import row_view
from tests.ui.markup import Tags
from tests.ui.recorded import HOSTILE


def read(*values, found=None):
    rows = [(at, each if isinstance(each, Row) else Row(at + 1, each)) for at, each in enumerate(values)]
    return row_view.readings(rows, detect([row.values for _, row in rows if row.values]), found)


def text(*values, **kwargs):
    return Tags(row_view.rows(read(*values), "en", **kwargs)).text


def test_rows_are_shown_as_prompt_and_answer():
    markup = row_view.rows(read({"instruction": "Add", "input": "1 and 2", "output": "3"}), "en")
    assert "Add\n1 and 2" in markup and ">3<" in markup


def test_every_turn_before_the_last_answer_stands_under_its_role():
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    shown = text({"messages": [*talk, *talk]})
    assert shown.index("User") < shown.index("Assistant") and shown.count("User") == 2


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"prompt": "p", "chosen": "good one", "rejected": "bad one"}, ["Better answer", "good one", "Worse answer"]),
        ({"prompt": "p", "completion": "c", "label": False}, ["Marked bad", "c"]),
        ({"prompt": "only asked"}, ["only asked", "The model answers while it learns."]),
        ({"text": "whole"}, ["whole"]),
    ],
)
def test_each_kind_of_row_says_what_is_learned(values, told):
    shown = text(values, values | ({"prompt": "q"} if "prompt" in values else {}))
    assert all(word in shown for word in told)


def test_calls_and_results_of_functions_are_shown():
    call = {"type": "function", "function": {"name": "look_up", "arguments": {"word": "x"}}}
    talk = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "found"},
        {"role": "assistant", "content": "b"},
    ]
    tools = json.dumps([{"type": "function", "function": {"name": "look_up", "description": "d"}}])
    shown = text({"messages": talk, "tools": tools})
    assert "Functions it may call" in shown and "look_up(" in shown and "Result of a function" in shown


def test_a_thought_and_an_answer_that_is_not_trained_are_told():
    said = {"role": "assistant", "content": "b", "reasoning_content": "<i>hm</i>", "weight": 0}
    shown = text({"messages": [{"role": "user", "content": "a"}, said]})
    assert "Not trained" in shown and "Thinks first" in shown and "<i>hm</i>" in shown
    assert "Not trained" not in text({"messages": [{"role": "user", "content": "a"}, {**said, "weight": 1}]})


def test_a_faulty_row_says_why_and_shows_what_is_in_the_file():
    shown = text({"prompt": "a", "completion": "b"}, {"prompt": "only this"})
    assert "Left out. completion: is missing" in shown
    assert '{"prompt": "only this"}' in shown


def test_an_unreadable_row_shows_how_it_begins():
    shown = text({"prompt": "a", "completion": "b"}, Row(2, None, "is not valid JSON.", "f", '{"prompt": '))
    assert "is not valid JSON" in shown and '{"prompt": ' in shown


def test_rows_without_a_known_format_are_shown_as_they_are():
    read = row_view.readings([(0, Row(1, {"colour": "red"}))], Detection(None, 0, ""))
    assert '{"colour": "red"}' in Tags(row_view.rows(read, "en")).text


def test_a_row_as_in_the_file_has_all_its_columns():
    shown = text({"prompt": "a", "completion": "b", "note": {"by": "me"}}, raw=True)
    assert "note" in shown and '{"by": "me"}' in shown


def test_a_row_is_numbered_by_its_place_and_told_its_line_where_that_is_another():
    rows = [(40, Row(7, {"text": "x"}, None, "second.txt"))]
    shown = Tags(row_view.rows(row_view.readings(rows, detect([{"text": "x"}])), "en")).text
    assert "41" in shown and "second.txt 7" in shown


def test_a_long_cell_is_cut_and_its_length_told():
    shown = text({"text": "x" * 5000})
    assert "x" * row_view.SHOWN_CHARACTERS + "… (5,000)" in shown
    assert "x" * (row_view.SHOWN_CHARACTERS + 1) not in shown


def test_what_was_searched_for_is_in_sight_however_far_back_it_stands():
    shown = text({"text": "x" * 3000 + " Needle " + "y" * 3000}, hit="needle")
    assert "Needle" in shown and shown.count("x") <= row_view.BEFORE_HIT and "(6,008)" in shown


def test_findings_and_markup_in_rows_stay_text():
    values = {"prompt": HOSTILE, "completion": HOSTILE}
    rows = read(values, {"prompt": HOSTILE, "completion": [HOSTILE]}, found={0: [f"repeats {HOSTILE}"]})
    for raw in (False, True):
        parsed = Tags(row_view.rows(rows, "en", raw=raw, hit="onerror"))
        assert "repeats <img src=x" in parsed.text
        assert not {"img", "b", "script"} & set(parsed.tags)
