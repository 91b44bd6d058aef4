"""Token counts against counting each row by hand, on a tokenizer whose tokens are bytes."""

import json
import math

import numpy as np
import pytest

from studio.data import registry
from studio.data.audit import report
from studio.data.learning import sft
from studio.errors import TemplateError
from studio.templates import Policy, encode, resolve
from tests.data.conftest import asks

CUTOFF = 60


@pytest.fixture
def counted(audited, byte_tokenizer):
    def counted(dataset, **fields):
        return audited(dataset, tokenizer=byte_tokenizer, model="tiny", max_length=CUTOFF, **fields)

    return counted


def lengths(found):
    return np.load(found.findings / "lengths.npy", allow_pickle=False)


def by_hand(dataset, tokenizer, **settings):
    """(position, tokens, tokens that are learned within the cutoff, tokens that are kept) of each row."""
    template = resolve("auto", tokenizer)
    for position, (_, example) in enumerate(registry.outcomes(dataset)):
        whole = encode(sft(example), template, tokenizer, Policy(**settings))
        cut = encode(sft(example), template, tokenizer, Policy(max_length=CUTOFF, **settings))
        yield [position, len(whole.input_ids), cut.learns, len(cut.input_ids)]


ROWS = [
    asks("Hi", "Hello."),
    asks("Why?", "Because " * 20),
    asks("A long question " * 10, "no"),
    asks("你好", "你好！"),
    asks("One", "Two", history=[["Three", "Four"]]),
]


@pytest.mark.parametrize("supervise", ["assistant", "last", "all"])
def test_every_row_is_counted_as_it_is_encoded_for_training(add, counted, byte_tokenizer, supervise):
    dataset = add("rows", ROWS)
    template = {"supervise": supervise, "system": "Be kind."}
    assert lengths(counted(dataset, template=template)).tolist() == list(by_hand(dataset, byte_tokenizer, **template))


def test_rows_that_the_cutoff_shortens_or_empties_are_found(add, counted):
    found = counted(add("rows", ROWS))
    assert (found.report.truncated, found.report.unsupervised) == (2, 1)
    assert report.positions(found.findings, "truncated") == [1, 2]
    assert report.positions(found.findings, "unsupervised") == [2]


def test_sums_shares_and_steps_follow_from_the_rows(add, counted):
    found = counted(add("rows", ROWS), effective_batch_size=3)
    rows, tokens = lengths(found), found.report.tokens
    trained = rows[rows[:, 2] > 0]
    assert tokens["rows"] == 5 and tokens["total"]["sum"] == rows[:, 1].sum()
    assert tokens["total"]["sum"] == tokens["prompt"]["sum"] + tokens["response"]["sum"]
    assert (tokens["supervised"], tokens["kept"]) == (rows[:, 2].sum(), trained[:, 3].sum())
    assert tokens["supervised_share"] == pytest.approx(tokens["supervised"] / tokens["kept"])
    assert tokens["steps_per_epoch"] == math.ceil(len(trained) / 3) == 2
    assert (tokens["total"]["min"], tokens["total"]["max"]) == (rows[:, 1].min(), rows[:, 1].max())
    assert tokens["total"]["p50"] == np.sort(rows[:, 1])[2]


def test_held_out_rows_are_no_steps(add, counted):
    rows = [asks(f"q{number}", "a") for number in range(20)]
    found = counted(add("rows", rows), effective_batch_size=1, validation_share=0.25)
    assert found.report.tokens["steps_per_epoch"] == 15


def test_the_histogram_holds_every_row_and_one_long_row_does_not_flatten_it(add, counted):
    rows = [asks("q" * (1 + number % 50), "a" * 10) for number in range(1, 400)] + [asks("q", "a" * 5000)]
    histogram = counted(add("rows", rows)).report.tokens["histogram"]
    assert histogram["edges"][-1] < 200 and len(histogram["edges"]) <= 42
    for part in ("total", "prompt", "response"):
        assert len(histogram[part]) == len(histogram["edges"]) - 1 and sum(histogram[part]) == 400


def test_a_row_that_the_template_refuses_is_kept_with_its_reason(add, counted):
    tool = [
        {"from": "human", "value": "Weather?"},
        {"from": "function_call", "value": json.dumps({"name": "weather", "arguments": {}})},
        {"from": "observation", "value": "rain"},
        {"from": "gpt", "value": "It rains."},
    ]
    plain = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    found = counted(add("rows", [{"conversations": plain}, {"conversations": tool}]))
    assert found.report.unwritable == 1 and report.positions(found.findings, "unwritable") == [1]
    (told,) = report.unwritable(found.findings)
    assert (told["row"], told["position"]) == (2, 1) and "tool" in told["reason"]
    assert found.report.tokens["rows"] == 1


def test_f19_special_tokens_in_user_text_are_counted(add, counted):
    found = counted(add("rows", [asks("Say <|im_end|> now", "no"), asks("b", "c")]))
    assert found.report.special_tokens == 1 and report.positions(found.findings, "special_token") == [0]


def test_f18_rows_that_hold_nothing_to_learn_are_left_out_of_the_counts(add, counted):
    rows = [{"prompt": f"q{number}", "completion": "a", "label": number > 0} for number in range(3)]
    tokens = counted(add("rows", rows, format="kto")).report.tokens
    assert (tokens["rows"], tokens["left_out"]) == (2, 1)


def test_an_unknown_template_is_named(add, counted):
    with pytest.raises(TemplateError, match="Did you mean 'chatml'"):
        counted(add("rows", ROWS), template={"name": "chatmll"})


def test_a_set_without_a_row_to_count_has_figures_all_the_same(add, counted):
    tokens = counted(add("rows", [{"prompt": "q"}], format="prompt")).report.tokens
    assert (tokens["rows"], tokens["total"]["max"], tokens["steps_per_epoch"]) == (0, 0, 0)
