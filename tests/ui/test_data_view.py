import json
from html.parser import HTMLParser

import pytest

from studio.data import registry
from studio.data.formats import Detection
from studio.ui import dataset_view
from tests.ui.recorded import HOSTILE


class Tags(HTMLParser):
    """The tags of some markup, and its text."""

    def __init__(self, markup):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(markup)
        self.text = "".join(self.words)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.words.append(data)


def file_of(tmp_path, rows, name="rows.jsonl"):
    path = tmp_path / name
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def shown(tmp_path, rows, language="en"):
    found = registry.inspect(file_of(tmp_path, rows))
    return dataset_view.rows(dataset_view.readings(found.preview, found.detection), language)


def test_the_list_names_every_dataset_and_marks_the_chosen_one(studio_home):
    markup = dataset_view.listing(registry.every(), "everyday-zh", "en")
    assert markup.count("data-name=") == len(registry.every())
    assert "data-name='everyday-zh' aria-current='true'" in markup
    assert markup.count("<tr data-name") - markup.count("<tr data-name='everyday-zh'") == len(registry.every()) - 1


def test_titles_are_chinese_on_a_chinese_page(studio_home):
    dataset = registry.get("identity-en")
    assert dataset_view.title(dataset, "zh") == "自我认知（英文）"
    assert dataset_view.title(dataset, "en") == "Identity (English)"


def test_rows_are_shown_as_prompt_and_answer(tmp_path):
    markup = shown(tmp_path, [{"instruction": "Add", "input": "1 and 2", "output": "3"}])
    assert "Add\n1 and 2" in markup and ">3<" in markup


def test_every_turn_before_the_last_answer_stands_under_its_role(tmp_path):
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    text = Tags(shown(tmp_path, [{"messages": [*talk, *talk]}])).text
    assert text.index("User") < text.index("Assistant") and text.count("User") == 2


def test_markup_in_rows_faults_and_names_stays_text(tmp_path):
    path = file_of(
        tmp_path,
        [{"prompt": HOSTILE, "completion": HOSTILE}, {"prompt": HOSTILE, "completion": [HOSTILE]}],
        name="<b>rows.jsonl".replace("<", "("),
    )
    found = registry.inspect(path)
    read = dataset_view.readings(found.preview, found.detection)
    for markup in (
        dataset_view.rows(read, "en"),
        dataset_view.faults(found, "en"),
        dataset_view.understood(f"{HOSTILE}.jsonl", found, "en"),
        dataset_view.problems([HOSTILE]),
    ):
        parsed = Tags(markup)
        assert "<img src=x" in parsed.text
        assert not {"img", "b", "script"} & set(parsed.tags)


def test_a_faulty_row_says_why_and_shows_what_is_in_the_file(tmp_path):
    text = Tags(shown(tmp_path, [{"prompt": "a", "completion": "b"}, {"prompt": "only this"}])).text
    assert "Left out. completion: is missing" in text
    assert '{"prompt": "only this"}' in text


def test_rows_without_a_known_format_are_shown_as_they_are():
    row = registry.Row(1, {"colour": "red"})
    text = Tags(dataset_view.rows(dataset_view.readings([row], Detection(None, 0, "")), "en")).text
    assert '{"colour": "red"}' in text


def test_a_long_cell_is_cut_and_its_length_told(tmp_path):
    text = Tags(shown(tmp_path, [{"text": "x" * 5000}])).text
    assert "x" * dataset_view.SHOWN_CHARACTERS + "… (5,000)" in text
    assert "x" * (dataset_view.SHOWN_CHARACTERS + 1) not in text


def test_what_was_understood_counts_valid_rows(tmp_path):
    found = registry.inspect(file_of(tmp_path, [{"prompt": "a", "completion": "b"}] * 3 + [{"prompt": "a"}]))
    text = Tags(dataset_view.understood("rows.jsonl", found, "en")).text
    assert "rows.jsonl reads as prompt_completion (likely)." in text
    assert "3 of 4 rows can be learned from." in text


def test_only_the_first_faults_are_listed_and_the_rest_counted(tmp_path):
    count = dataset_view.SHOWN_FAULTS + 30
    rows = [{"prompt": "a", "completion": "b"}, *[{"prompt": "a", "completion": None}] * count]
    markup = dataset_view.faults(registry.inspect(file_of(tmp_path, rows)), "en")
    assert markup.count("<tr><td>") == dataset_view.SHOWN_FAULTS
    assert "and 30 more." in markup


@pytest.mark.parametrize(
    ("total", "expected"), [(48, "rows 21–40 of 48"), (1000, "rows 21–40 of 1,000 (the first 200 can be looked at)")]
)
def test_the_position_is_told(total, expected):
    assert Tags(dataset_view.position(20, 20, total, "en")).text == expected


@pytest.mark.parametrize(
    ("file_name", "expected"),
    [
        ("my data (1).jsonl", "my-data-1"),
        ("训练数据.json", "dataset"),
        ("../../etc/passwd.csv", "etc-passwd"),
        ("con.csv", "con-2"),
        ("x" * 200 + ".csv", "x" * 56),
        ("taken.csv", "taken-2"),
        ("TAKEN.csv", "TAKEN-2"),
        ("trailing...json", "trailing"),
    ],
)
def test_the_suggested_name_can_be_registered(file_name, expected):
    assert dataset_view.suggested_name(file_name, ["taken", "con"]) == expected
