"""Rows of preferences: what is prompt and what is answer, what is cut, what falls out, and that it can be stopped."""

import json

import pytest

from studio.data import registry
from studio.data.example import Message
from studio.engine.models.load import load_tokenizer
from studio.engine.rows.pairs import prepare
from studio.errors import DataError
from studio.events import Phase
from studio.specs import TrainSpec, parse
from studio.templates import generation_prompt, resolve

ROWS = [
    {"prompt": f"What is {a} plus {b}?", "chosen": f"It is {a + b}, my friend.", "rejected": f"Go away with {a}."}
    for a in range(1, 6)
    for b in range(1, 5)
]
LONG = " ".join(["word"] * 60)


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return load_tokenizer(tiny())[1]


@pytest.fixture
def made(studio_home, tmp_path, tokenizer):
    """made(rows, stage, **data) -> (Rows, what was told)"""

    def make(rows=ROWS, stage="dpo", stopping=lambda: False, **data):
        path = tmp_path / "rows.json"
        path.write_text(json.dumps(rows))
        registry.add(path, "rows", format="kto" if "label" in rows[0] else "preference")
        values = {"data": {"datasets": ["rows"], "max_length": 64} | data, "stage": {"kind": stage}}
        told = []
        place = tmp_path / ".rows"
        template = resolve("chatml", tokenizer)
        spec = parse(TrainSpec, values)
        return prepare(spec, tokenizer, template, told.append, place=place, stopping=stopping), told

    return make


def test_the_prompt_is_what_the_model_will_answer_and_both_answers_end(made, tokenizer):
    rows, _ = made()
    first = rows.train[0]
    wanted = generation_prompt([Message("user", "What is 1 plus 1?")], resolve("chatml", tokenizer), tokenizer)
    assert first["prompt_ids"] == wanted
    said = [tokenizer.decode(first[side]) for side in ("chosen_ids", "rejected_ids")]
    assert said == ["It is 2, my friend.<|im_end|>", "Go away with 1.<|im_end|>"]


def test_rows_are_held_out_counted_and_hashed(made):
    rows, told = made(validation_share=0.25)
    assert (len(rows.train), len(rows.held)) == (15, 5)
    counts = rows.counts["rows"]
    assert (counts.rows, counts.trained, counts.held, counts.mixed) == (20, 15, 5, 15)
    assert rows.hashes == {"rows": registry.get("rows").sha256}
    assert [(each.done, each.total) for each in told if each.name == "tokenize"][-1] == (20, 20)
    assert all(isinstance(each, Phase) for each in told)


def test_two_answers_are_two_marked_ones_for_kto(made, tokenizer):
    rows, _ = made(ROWS[:2], "kto")
    assert rows.train.column_names == ["prompt_ids", "completion_ids", "label"]
    assert rows.train["label"][:] == [True, False, True, False]
    assert tokenizer.decode(rows.train[1]["completion_ids"]).startswith("Go away")


def test_marked_answers_keep_their_mark(made):
    marked = [{"prompt": "Who?", "completion": f"Number {n}.", "label": n % 3 == 0} for n in range(6)]
    rows, _ = made(marked, "kto")
    assert rows.train["label"][:] == [row["label"] for row in marked]


def test_an_earlier_answer_that_says_it_is_learned_changes_nothing(made, tokenizer):
    earlier = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho", "train": True}]
    asked = [*earlier, {"role": "user", "content": "Who?"}]
    sides = {side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    rows, _ = made([{"prompt": asked, **sides}])
    assert tokenizer.decode(rows.train[0]["chosen_ids"]) == "chosen<|im_end|>"
    assert "Ho" in tokenizer.decode(rows.train[0]["prompt_ids"])


def test_answers_that_part_before_the_last_turn_are_answers_from_there_on(made, tokenizer):
    def talk(word):
        said = [("user", "Hi"), ("assistant", word), ("user", "Why?"), ("assistant", "Because.")]
        return [{"role": role, "content": content} for role, content in said]

    rows, _ = made([{"chosen": talk("Yes"), "rejected": talk("No")}])
    assert tokenizer.decode(rows.train[0]["prompt_ids"]).endswith("assistant\n")
    said = tokenizer.decode(rows.train[0]["chosen_ids"])
    assert said.startswith("Yes<|im_end|>") and said.endswith("Because.<|im_end|>")


@pytest.mark.parametrize(
    ("truncation", "count", "lost"),
    [("cut_answer", 1, "cut_answer"), ("cut_source", 1, "cut_source"), ("drop_row", 0, "dropped")],
)
def test_a_row_beyond_the_cutoff_loses_what_the_truncation_says(made, tokenizer, truncation, count, lost):
    answer = "The answer is here. " * 3
    long = {"prompt": LONG, "chosen": answer, "rejected": "No."}
    cutoff = len(generation_prompt([Message("user", LONG)], resolve("chatml", tokenizer), tokenizer)) + 6
    rows, _ = made([*ROWS[:1], long], max_length=cutoff, truncation=truncation)
    assert len(rows.train) == 1 + count and getattr(rows.counts["rows"], lost) == 1
    assert rows.counts["rows"].truncated == 1
    if not count:
        return
    cut = rows.train[1]
    assert max(len(cut["prompt_ids"]) + len(cut[side]) for side in ("chosen_ids", "rejected_ids")) == cutoff
    ends = tokenizer.decode(cut["chosen_ids"]).endswith("<|im_end|>")
    begins = tokenizer.decode(cut["prompt_ids"]).startswith("<|im_start|>")
    assert (ends, begins) == ((False, True) if truncation == "cut_answer" else (True, False))


def test_the_prompt_keeps_half_of_the_cutoff(made):
    rows, _ = made([{"prompt": LONG, "chosen": LONG, "rejected": "No."}], max_length=40, truncation="cut_source")
    assert (len(rows.train[0]["prompt_ids"]), len(rows.train[0]["chosen_ids"])) == (20, 20)


def test_pairs_that_differ_only_beyond_the_cutoff_are_skipped(made):
    alike = {"prompt": "Who?", "chosen": f"{LONG} I.", "rejected": f"{LONG} you."}
    rows, _ = made([*ROWS[:1], alike], max_length=40)
    assert (len(rows.train), rows.counts["rows"].skipped) == (1, 1)


def test_f18_nothing_within_the_cutoff_names_the_field(made):
    with pytest.raises(DataError, match=r"data\.max_length = 8"):
        made(max_length=8)


def test_a_dataset_without_a_second_answer_is_refused(made):
    marked = [{"prompt": "Who?", "completion": "Nobody.", "label": True}]
    with pytest.raises(DataError, match="second answer"):
        made(marked, "dpo")


def test_it_can_be_stopped(made):
    assert made(stopping=lambda: True)[0] is None
