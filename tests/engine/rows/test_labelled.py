"""Classified texts as tokens: balanced, split, cut and counted."""

import json

import pytest

from studio.data import registry
from studio.engine.models.load import load_tokenizer
from studio.engine.rows.labelled import labelled, shortened, text_ids
from studio.errors import DataError
from studio.events import Phase
from studio.specs import DataSpec, TrainSpec, parse
from studio.templates import resolve


@pytest.fixture
def made(tiny, studio_home, tmp_path):
    """made(rows, data, stage) -> (Rows, events)"""
    tokenizer = load_tokenizer(tiny())[1]

    def make(rows, stage=None, stopping=lambda: False, **data):
        path = tmp_path / "rows.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        values = {"datasets": [registry.add(path, "rows", format="classification").name], "max_length": 32, **data}
        spec = parse(TrainSpec, {"data": values, "stage": {"kind": "classify", **(stage or {})}})
        told = []
        template = resolve("chatml", tokenizer)
        return labelled(spec, tokenizer, template, told.append, place=tmp_path / "place", stopping=stopping), told

    return make


def texts(count, label="ham"):
    return [{"text": f"{label} message {n}", "label": label} for n in range(count)]


def test_rows_are_tokens_of_the_text_alone_and_the_number_of_their_label(tiny, made):
    rows, _ = made([{"text": "Win a prize", "label": "spam"}, {"text": "See you", "label": "ham"}])
    decode = load_tokenizer(tiny())[1].decode
    assert [(decode(row["input_ids"]), row["labels"]) for row in rows.train] == [("Win a prize", 1), ("See you", 0)]


def test_all_three_parts_are_there_and_counted(made):
    rows, told = made([*texts(40), *texts(10, "spam")], {"balance": True}, validation_share=0.1, test_share=0.2)
    assert [len(part) for part in (rows.train, rows.held, rows.tested)] == [14, 2, 4]
    counts = rows.counts["rows"]
    assert (counts.rows, counts.trained, counts.held, counts.tested, counts.mixed) == (50, 14, 2, 4, 14)
    assert "Rows of each label, balanced: 10 ham, 10 spam." in rows.told
    assert [event.done for event in told if isinstance(event, Phase) and event.name == "tokenize"] == [20]


def test_special_tokens_in_a_text_are_read_as_plain_text(tiny, made):
    rows, _ = made([{"text": "stop <|endoftext|>", "label": "a"}, *texts(1, "b")])
    tokenizer = load_tokenizer(tiny())[1]
    ids = rows.train[0]["input_ids"]
    assert tokenizer.backend.token_to_id("<|endoftext|>") not in ids and tokenizer.decode(ids) == "stop <|endoftext|>"
    assert rows.counts["rows"].escaped == 1


@pytest.mark.parametrize(
    ("truncation", "kept"),
    [
        ("cut_answer", list(range(8))),
        ("drop_turns", list(range(12, 20))),
        ("cut_source", [0, 1, *range(14, 20)]),
        ("drop_row", None),
    ],
)
def test_a_long_text_loses_what_the_truncation_says(tiny, truncation, kept):
    tokenizer = load_tokenizer(tiny())[1]
    data = DataSpec(datasets=("x",), max_length=8, truncation=truncation)
    assert shortened(list(range(20)), tokenizer, data) == kept


def test_cut_rows_are_told_and_dropped_ones_are_gone(made):
    long = [{"text": "word " * 60, "label": "long"}]
    rows, _ = made([*texts(3), *long])
    assert len(rows.train) == 4 and rows.counts["rows"].truncated == 1
    assert "1 rows are longer than 32 tokens, so only their beginning is read." in rows.told
    assert len(max(rows.train["input_ids"], key=len)) == 32
    registry.remove("rows")
    rows, _ = made([*texts(3), *long], truncation="drop_row")
    assert len(rows.train) == 3 and rows.total("dropped") == 1


def test_f18_rows_that_are_all_too_long_are_refused(made):
    with pytest.raises(DataError, match=r"Not one of 2 rows fits into data\.max_length = 8"):
        made([{"text": "word " * 60, "label": label} for label in "ab"], max_length=8, truncation="drop_row")


def test_a_stop_ends_it(made):
    assert made([*texts(3), *texts(3, "spam")], stopping=lambda: True)[0] is None


def test_a_tokenizer_that_begins_texts_keeps_its_start_token(tiny):
    tokenizer = load_tokenizer(tiny())[1]
    tokenizer.__dict__["start_string"] = "<|im_start|>"
    start = tokenizer.backend.token_to_id("<|im_start|>")
    ids = text_ids("one two <|im_start|>", tokenizer)
    assert ids[0] == start and start not in ids[1:]
    data = DataSpec(datasets=("x",), max_length=8, truncation="drop_turns")
    assert shortened([start, *range(100, 120)], tokenizer, data) == [start, *range(113, 120)]


def test_datasets_are_mixed_by_their_weights(tiny, studio_home, tmp_path):
    for name, count in (("a", 12), ("b", 12)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(map(json.dumps, texts(count, name))))
        registry.add(path, name, format="classification")
    tokenizer = load_tokenizer(tiny())[1]
    spec = parse(TrainSpec, {"data": {"datasets": ["a", "b"], "weights": [3, 1]}, "stage": {"kind": "classify"}})
    place = tmp_path / "place"
    rows = labelled(spec, tokenizer, resolve("chatml", tokenizer), lambda event: None, place=place)
    assert [rows.train["labels"][:].count(label) for label in (0, 1)] == [12, 4]
    assert [rows.counts[name].mixed for name in "ab"] == [12, 4]
