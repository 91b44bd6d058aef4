"""Whatever a row holds, it becomes an example or a fault; and what it says comes out as it went in."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.data import formats
from studio.data.example import Example, RowFault

quick = settings(max_examples=60)

plain = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8)
)
values = st.recursive(
    plain,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)
# values that are nearly right go deeper into a format than values that are not
KEYS = (
    "role",
    "content",
    "from",
    "value",
    "tool_calls",
    "function_call",
    "function",
    "name",
    "arguments",
    "type",
    "text",
)
WORDS = (
    "user",
    "assistant",
    "system",
    "tool",
    "human",
    "gpt",
    "function_call",
    "observation",
    "text",
    "{}",
    "true",
    "1",
)
nearly = st.one_of(values, st.sampled_from(WORDS), st.just('{"name": "f", "arguments": {}}'))
turn = st.dictionaries(st.sampled_from(KEYS), st.one_of(nearly, st.lists(nearly, max_size=2)), max_size=4)
proper = st.fixed_dictionaries({"role": st.sampled_from(WORDS[:4]), "content": nearly})
proper_too = st.fixed_dictionaries({"from": st.sampled_from(WORDS[4:8]), "value": nearly})
talk = st.lists(st.one_of(turn, proper, proper_too), max_size=4)
cell = st.one_of(nearly, turn, talk, talk.map(json.dumps), st.lists(st.lists(nearly, max_size=2), max_size=2))


def rows_for(name):
    usual = [column for columns in formats.get(name).columns.values() for column in columns]
    return st.dictionaries(st.one_of(st.sampled_from(usual), st.text(max_size=6)), cell, max_size=6)


def columns_for(name):
    """Every part under its usual name, or some parts under any column."""
    known = formats.get(name).columns
    paths = st.sampled_from(
        ("a", "a[]", "a.b[0]", "a.b", "[", "a[].b", *(c for names in known.values() for c in names))
    )
    usual = {part: names[0] for part, names in known.items()}
    return st.one_of(st.just({}), st.just(usual), st.dictionaries(st.sampled_from(sorted(known)), paths, max_size=4))


def tags_for(name):
    some = (
        {},
        dict(formats.get(name).tags),
        {"role_tag": "", "content_tag": "value"},
        {"role_tag": "", "content_tag": ""},
    )
    return st.sampled_from((*some, {"role_tag": "from", "user_tag": "gpt"}))


@pytest.mark.parametrize("name", formats.FORMATS)
def test_any_row_becomes_an_example_or_a_fault(name):
    @quick
    @given(rows_for(name), columns_for(name), tags_for(name))
    def holds(row, columns, tags):
        before = json.dumps(row)
        try:
            outcome = formats.get(name).convert(row, columns, tags)
        except RowFault as fault:
            assert fault.field and fault.reason
            return
        assert isinstance(outcome, Example)
        json.dumps(outcome.conventional())
        assert json.dumps(row) == before

    holds()


@quick
@given(st.data())
def test_any_rows_are_detected_or_not_and_the_mapping_names_known_parts(data):
    name = data.draw(st.sampled_from(sorted(formats.FORMATS)))
    rows = data.draw(st.lists(rows_for(name), max_size=5))
    found = formats.detect(rows)
    assert 0 <= found.confidence <= 1 and found.reason
    if found.format is not None:
        known = formats.get(found.format)
        assert set(found.columns) <= set(known.columns) and set(known.needed) <= set(found.columns)
        assert set(found.tags) <= set(known.tags)


# --- What goes in comes out ---

said = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30).filter(
    lambda text: text.strip() and not text.startswith(("[", "\n\nHuman:"))
)
system = st.one_of(st.just(""), said)
pairs = st.lists(st.tuples(said, said), min_size=1, max_size=3)
SAYING = ("prompt", "messages", "text", "content", "completion", "chosen", "rejected", "label")
different = st.tuples(said, said).filter(lambda two: two[0] != two[1])


def texts(value):
    """All texts of messages, answers and labels, in order."""
    if isinstance(value, dict):
        inner = [value[key] for key in SAYING if key in value]
        return [text for each in inner for text in texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in texts(each)]
    return [value]


def goes_through(name, row, expected):
    found = formats.detect([row])
    assert (found.format, found.confidence) == (name, 1.0)
    assert texts(formats.get(name).convert(row, found.columns, found.tags).conventional()) == expected


@quick
@given(said, system, said, system, pairs)
def test_alpaca_says_what_the_row_says(instruction, query, output, order, history):
    row = {
        "instruction": instruction,
        "input": query,
        "output": output,
        "system": order,
        "history": [*map(list, history)],
    }
    asked = f"{instruction}\n{query}" if query else instruction
    goes_through("alpaca", row, [order] * bool(order) + [text for pair in history for text in pair] + [asked, output])


@quick
@given(system, pairs)
def test_conversations_say_what_the_row_says(order, spoken):
    expected = [order] * bool(order) + [text for pair in spoken for text in pair]
    turns = [("system", order)] * bool(order)
    turns += [turn for asked, answer in spoken for turn in (("user", asked), ("assistant", answer))]
    goes_through("openai", {"messages": [{"role": who, "content": text} for who, text in turns]}, expected)
    others = {"system": "system", "user": "human", "assistant": "gpt"}
    goes_through("sharegpt", {"conversations": [{"from": others[who], "value": text} for who, text in turns]}, expected)


@quick
@given(said, said, system)
def test_prompts_and_completions_say_what_the_row_says(asked, answer, order):
    row = {"prompt": asked, "completion": answer, "system": order}
    goes_through("prompt_completion", row, [order] * bool(order) + [asked, answer])
    goes_through("prompt", {"prompt": asked, "system": order}, [order] * bool(order) + [asked])


@quick
@given(said, said.filter(lambda text: len(text.strip()) < 40))
def test_texts_and_labels_say_what_the_row_says(text, label):
    goes_through("text", {"text": text}, [text])
    goes_through("classification", {"text": text, "label": label}, [text, label.strip()])


@quick
@given(pairs, different, st.booleans())
def test_preferences_and_thumbs_say_what_the_row_says(spoken, answers, good):
    earlier = [
        {"role": who, "content": text}
        for asked, answer in spoken
        for who, text in (("user", asked), ("assistant", answer))
    ][:-1]
    chosen, rejected = ({"role": "assistant", "content": text} for text in answers)
    expected = [turn["content"] for turn in earlier]
    implicit = {"chosen": [*earlier, chosen], "rejected": [*earlier, rejected]}
    goes_through("preference", implicit, [*expected, *answers])
    goes_through("preference", {"prompt": earlier, "chosen": [chosen], "rejected": [rejected]}, [*expected, *answers])
    asked = spoken[0][0]
    goes_through("preference", {"prompt": asked, "chosen": answers[0], "rejected": answers[1]}, [asked, *answers])
    goes_through("kto", {"messages": [*earlier, chosen], "label": good}, [*expected, answers[0], good])
    goes_through("kto", {"prompt": asked, "completion": answers[0], "label": good}, [asked, answers[0], good])
