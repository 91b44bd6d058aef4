"""Published sets, as they are: each is recognised, and its rows are read.

They lie in a folder beside the checkout. Not here: files of the repository (test_registry).
"""

from pathlib import Path

import pytest

from studio.data import formats, readers
from studio.data.example import Example, RowFault

SHARED = Path(__file__).parents[3] / "shared" / "data"

published = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the published sets lie in a folder `shared` beside the checkout, which is not there"
)

ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
ASKED = {"prompt": "question", "response": "answer"}
TALK = {"messages": "conversations"}
# the file, its format, its mapping, whether that is only a suggestion, its rows, and how many of them are valid
SETS = [
    ("chat/fastchat_dummy_conversation.json", "sharegpt", TALK, False, 500, 500),
    ("chat/glaive_toolcall_en_demo.json", "sharegpt", TALK | {"tools": "tools"}, False, 300, 300),
    ("chat/kdconv_film_dev_openai_messages.jsonl", "openai", {"messages": "messages"}, False, 150, 150),
    ("chat/kdconv_film_sharegpt_zh.json", "sharegpt", TALK, False, 150, 150),
    ("chat/kdconv_film_test.json", "sharegpt", {"messages": "messages"}, True, 150, 150),
    ("classification/banking77_test.csv", "classification", {"text": "text", "label": "category"}, False, 3080, 3080),
    (
        "classification/banking77_train.csv",
        "classification",
        {"text": "text", "label": "category"},
        False,
        10003,
        10003,
    ),
    ("classification/kdconv_domain_zh.csv", "classification", {"text": "text", "label": "label"}, False, 4000, 4000),
    ("classification/sms_spam.tsv", "classification", {"text": "column 2", "label": "column 1"}, True, 5574, 5574),
    ("eval/gaokao_geography_mcq.json", "prompt_completion", ASKED | {"response": "answer[]"}, True, 34, 34),
    ("eval/gaokao_history_mcq.json", "prompt_completion", ASKED | {"response": "answer[]"}, True, 287, 287),
    ("instruct/gaokao_alpaca_zh.json", "alpaca", ALPACA, False, 321, 321),
    ("instruct/identity.json", "alpaca", ALPACA, False, 91, 91),
    ("instruct/rasbt_instruction.json", "alpaca", ALPACA, False, 1100, 1100),
    (
        "instruct/self_instruct_seed_tasks.jsonl",
        "alpaca",
        {"prompt": "instruction", "query": "instances[0].input", "response": "instances[0].output"},
        True,
        175,
        175,
    ),
    ("math/gsm8k_test.jsonl", "prompt_completion", ASKED, False, 1319, 1319),
    ("math/gsm8k_train.jsonl", "prompt_completion", ASKED, False, 7473, 7473),
    ("nlg/e2e_devset.csv", "prompt_completion", {"prompt": "mr", "response": "ref"}, True, 4672, 4672),
    ("nlg/e2e_testset_w_refs.csv", "prompt_completion", {"prompt": "mr", "response": "ref"}, True, 4693, 4693),
    (
        "preference/dpo_zh_demo.json",
        "preference",
        TALK | {"chosen": "chosen", "rejected": "rejected"},
        False,
        300,
        300,
    ),
    ("preference/kto_en_demo.json", "kto", {"messages": "messages", "label": "label"}, False, 300, 300),
    # six of its rows have the same text as chosen and as rejected
    (
        "preference/rasbt_instruction_with_preference.json",
        "preference",
        {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"},
        False,
        1100,
        1094,
    ),
    ("rawtext/c4_demo.jsonl", "text", {"text": "text"}, False, 300, 300),
    ("rawtext/songci_0.json", "text", {"text": "paragraphs[]"}, True, 1000, 1000),
    ("rawtext/the_verdict.txt", "text", {"text": "text"}, False, 83, 83),
    ("rawtext/tinyshakespeare.txt", "text", {"text": "text"}, False, 32777, 32777),
]


def outcome(values, found):
    try:
        return formats.get(found.format).convert(values, found.columns, found.tags)
    except RowFault as fault:
        return fault


@published
@pytest.mark.parametrize(
    ("file", "name", "columns", "suggested", "rows", "valid"), SETS, ids=[each[0] for each in SETS]
)
def test_a_published_set_is_recognised_and_read(file, name, columns, suggested, rows, valid):
    read = list(readers.read(SHARED / file))
    assert [row.fault for row in read if row.fault] == []
    values = [row.values for row in read]
    found = formats.detect(values)
    assert (found.format, found.columns) == (name, columns)
    assert found.confidence < 0.5 if suggested else found.confidence == 1.0
    outcomes = [outcome(each, found) for each in values]
    assert (len(outcomes), sum(isinstance(each, Example) for each in outcomes)) == (rows, valid)


@published
def test_every_published_set_is_tried():
    assert {each[0] for each in SETS} == {str(path.relative_to(SHARED)) for path in SHARED.glob("*/*")}


@published
def test_the_calls_of_a_published_set_are_calls():
    rows = [row.values for row in readers.read(SHARED / "chat/glaive_toolcall_en_demo.json")]
    found = formats.detect(rows)
    examples = [outcome(row, found) for row in rows]
    turns = [turn for example in examples for turn in example.messages]
    assert sum(len(turn.tool_calls) for turn in turns) == sum(turn.role == "tool" for turn in turns) == 211
    assert sum(bool(example.tools) for example in examples) == 191


@published
def test_system_turns_of_a_published_preference_set_are_kept():
    rows = [row.values for row in readers.read(SHARED / "preference/dpo_zh_demo.json")]
    found = formats.detect(rows)
    assert sum(outcome(row, found).messages[0].role == "system" for row in rows) == 64
