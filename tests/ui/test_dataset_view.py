from dataclasses import replace

import pytest

from studio.data import registry
from studio.data.intake import Source
from studio.ui import dataset_view
from tests.ui.markup import Tags
from tests.ui.recorded import HOSTILE


@pytest.fixture
def dataset(studio_home):
    return registry.get("identity-en")


def test_the_list_names_every_dataset_and_marks_the_chosen_one(studio_home):
    markup = dataset_view.listing(registry.every(), "everyday-zh", "en")
    assert markup.count("data-name=") == len(registry.every())
    assert "data-name='everyday-zh' aria-current='true'" in markup
    assert markup.count("<tr data-name") - markup.count("<tr data-name='everyday-zh'") == len(registry.every()) - 1


def test_titles_are_chinese_on_a_chinese_page(dataset):
    assert dataset_view.title(dataset, "zh") == "自我认知（英文）"
    assert dataset_view.title(dataset, "en") == "Identity (English)"


def test_faulty_rows_are_counted_with_how_to_train_on_the_others(dataset):
    assert "data.skip_faulty" not in dataset_view.about(dataset, "en")
    told = Tags(dataset_view.about(replace(dataset, valid=40), "en")).text
    assert "Rows that cannot be learned from: 8." in told and "other 40" in told and "data.skip_faulty" in told


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"origin": {"from": "mother", "remedy": "drop_duplicates"}}, "Made from mother: Without duplicates."),
        ({"origin": {"hub": "a/b", "revision": "0123456789abcdef"}}, "From the hub: a/b, commit 0123456789ab."),
        ({"sources": tuple(Source(f"{n}.csv", "", 1, 1) for n in range(5))}, "From 0.csv, 1.csv, 2.csv (+2)."),
        ({"sources": (Source("x.csv", "", 1, 1),), "title": "x.csv"}, ""),
    ],
)
def test_where_rows_came_from_is_told(dataset, changes, expected):
    assert dataset_view.origin(replace(dataset, **changes), dataset_view.table("en")) == expected


def test_markup_in_facts_stays_text(dataset):
    hostile = replace(dataset, title=HOSTILE, description=HOSTILE, columns={"prompt": HOSTILE})
    parsed = Tags(dataset_view.about(hostile, "en") + dataset_view.problems([HOSTILE]))
    assert "img" not in parsed.tags and parsed.text.count("<img src=x") >= 3


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
        ("rows.jsonl.gz", "rows"),
    ],
)
def test_the_suggested_name_can_be_registered(file_name, expected):
    assert dataset_view.suggested_name(file_name, ["taken", "con"]) == expected


def test_the_parts_that_most_data_does_without_come_last():
    assert dataset_view.PARTS[-3:] == ("system", "history", "tools")
