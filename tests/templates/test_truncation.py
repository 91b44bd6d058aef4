"""Rows that are too long: whatever goes, no answer is learned without its question's end and its own header.

Not here: rows that fit (test_supervision, test_encoding).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio import templates
from studio.data.example import Example, Message
from studio.home import CHECKOUT
from studio.templates import Encoded, Policy, Template, TextTokenizer, encode
from studio.templates.cutting import LEAST_SOURCE
from tests.templates.tiny import byte_tokenizer

QWEN = CHECKOUT.parent / "shared" / "templates" / "tokenizers" / "qwen2_5"

HEADER = "<turn>assistant\n"
CHAT = Template(
    "chat",
    "{% for m in messages %}<turn>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}</s>{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}",
    origin="shipped",
)
LEARNED = {"answer", "end", "text"}
TRUNCATIONS = ("cut_answer", "drop_turns", "cut_source", "drop_row")
SUPERVISE = ("assistant", "last", "all")


def _tiny() -> TextTokenizer:
    """Every byte is a token, so that lengths are easy to see."""
    return byte_tokenizer("<s>", "</s>", "<turn>")


TINY = _tiny()
LONG = (
    Message("system", "S" * 40),
    Message("user", "a" * 50),
    Message("assistant", "b" * 30),
    Message("user", "c" * 60),
    Message("assistant", "d" * 40),
)


def learned(encoded: Encoded) -> list[tuple[int, int, int]]:
    """(id, start, end) of each learned token."""
    together = zip(encoded.input_ids, encoded.offsets, encoded.supervised, strict=True)
    return [(number, *span) for number, span, on in together if on]


def words(encoded: Encoded) -> str:
    return _text(encoded, [each[1:] for each in learned(encoded)])


def kept(encoded: Encoded) -> str:
    return _text(encoded, encoded.offsets)


def _text(encoded: Encoded, spans: Sequence[tuple[int, int]]) -> str:
    """The text of tokens, of which several may share a character."""
    pieces, place = [], 0
    for start, end in spans:
        pieces.append(encoded.text[max(start, place) : end])
        place = max(place, end)
    return "".join(pieces)


def is_in(some: list, whole: list) -> bool:
    """Whether all of some are in the whole, in its order."""
    rest = iter(whole)
    return all(each in rest for each in some)


def check(messages: tuple[Message, ...], template: Template, tokenizer: TextTokenizer, policy: Policy, header: str):
    """What holds of every conversation, however long, under every policy."""
    whole = encode(messages, template, tokenizer, replace(policy, max_length=None))
    cut = encode(messages, template, tokenizer, policy)
    assert len(cut.input_ids) == len(cut.offsets) <= policy.max_length and cut.total == len(whole.input_ids)
    assert all(token.supervised == (token.reason in LEARNED) for token in cut.tokens)
    assert "".join(token.text for token in cut.tokens) == kept(cut)
    assert kept(whole) == whole.text
    if len(whole.input_ids) <= policy.max_length:
        assert cut == whole and not cut.truncated
        return
    match cut.cut:
        case "row":
            assert policy.truncation == "drop_row" and not cut.input_ids and not cut.learned
        case "answer":
            shorter = whole if cut.text == whole.text else _shortened(messages, template, tokenizer, policy, cut.text)
            if policy.truncation == "cut_source":  # its sources have lost their middles before
                assert is_in(learned(cut), learned(shorter))
            else:
                assert cut.input_ids == shorter.input_ids[: len(cut.input_ids)]
                assert learned(cut) == learned(shorter)[: len(learned(cut))]
        case "turns":
            shorter = _shortened(messages, template, tokenizer, policy, cut.text)
            assert cut.input_ids == shorter.input_ids and learned(cut) == learned(shorter)
        case "source":
            if policy.supervise != "all":
                assert learned(cut) == learned(whole), "the answers are whole"
    if cut.cut != "turns" and cut.text == whole.text:
        assert is_in(learned(cut), learned(whole))
    if policy.supervise != "all":
        _begin_after_their_headers(cut, header)


def _shortened(messages, template, tokenizer, policy, text) -> Encoded:
    """The conversation without its oldest turns whose text this is."""
    system = messages[:1] if messages[0].role == "system" else ()
    for begin in range(len(system), len(messages)):
        if messages[begin].role == "user":
            found = encode((*system, *messages[begin:]), template, tokenizer, replace(policy, max_length=None))
            if found.text == text:
                return found
    raise AssertionError("no shorter conversation has this text")


def _begin_after_their_headers(cut: Encoded, header: str) -> None:
    """Before each learned answer stand its header and the end of what was asked, in the tokens that are kept."""
    starts = {begin for begin, _ in cut.answers}
    for first, _ in cut.learned:
        if cut.offsets[first][0] in starts:
            before = _text(cut, cut.offsets[:first])
            asked = cut.text[: cut.offsets[first][0]].removesuffix(header)
            assert before.endswith(header) and before.removesuffix(header)[-1:] == asked[-1:]


texts = st.text("ab é🙂\n", min_size=1, max_size=40).filter(str.strip)
answers = st.builds(
    lambda thought, text, train: Message("assistant", thought + text, train=train),
    st.just("") | st.text("xy", max_size=6).map("<think>{}</think>\n\n".format),
    texts,
    st.sampled_from((None, None, True, False)),
)
rounds = st.lists(st.tuples(texts.map(lambda text: Message("user", text)), answers), min_size=1, max_size=4)


@settings(max_examples=300)
@given(
    st.none() | texts,
    rounds,
    st.integers(1, 160),
    st.sampled_from(SUPERVISE),
    st.sampled_from(TRUNCATIONS),
    st.booleans(),
)
def test_nothing_is_learned_without_what_it_answers(system, pairs, most, supervise, truncation, thoughts):
    messages = tuple(message for pair in pairs for message in pair)
    if system:
        messages = (Message("system", system), *messages)
    policy = Policy(supervise, learn_thoughts=thoughts, max_length=most, truncation=truncation)
    check(messages, CHAT, TINY, policy, HEADER)


@settings(max_examples=100)
@given(texts.map(lambda text: text * 5), texts, st.integers(1, 300))
def test_the_answer_stays_whole_whenever_it_fits_beside_what_is_left_of_its_source(source, answer, most):
    messages = (Message("user", source), Message("assistant", answer))
    whole = encode(messages, CHAT, TINY)
    cut = encode(messages, CHAT, TINY, Policy(max_length=most, truncation="cut_source"))
    least = len(whole.input_ids) - max(0, len(source.encode()) - LEAST_SOURCE)
    if most >= least:
        assert words(cut) == f"{answer}</s>"
        assert cut.cut == ("source" if most < len(whole.input_ids) else "")


@pytest.mark.skipif(not QWEN.is_dir(), reason="the published tokenizers lie in a folder `shared` beside the checkout")
@pytest.mark.parametrize(("supervise", "truncation"), product(SUPERVISE, TRUNCATIONS))
def test_a_real_tokenizer_is_cut_no_otherwise(supervise, truncation):
    tokenizer = TextTokenizer.from_folder(QWEN)
    talk = (
        Message("system", "你是一个简洁的助手。" * 4),
        Message("user", "Which river flows through Vienna? 🙂 " * 6),
        Message("assistant", "The Danube. 多瑙河。" * 3),
        Message("user", "And through Paris?\n" * 10),
        Message("assistant", "<think>\nFrance.\n</think>\n\nThe Seine, naïve é. " * 2),
    )
    for most in (1, 5, 20, 40, 70, 90, 120, 150, 1000):
        policy = Policy(supervise, learn_thoughts=most % 2 == 0, max_length=most, truncation=truncation)
        check(talk, templates.load("chatml"), tokenizer, policy, "<|im_start|>assistant\n")


# --- What goes, policy by policy


def cut(truncation, most, messages=LONG, **policy) -> Encoded:
    return encode(messages, CHAT, TINY, Policy(truncation=truncation, max_length=most, **policy))


@pytest.mark.parametrize("supervise", SUPERVISE)
def test_a_row_that_is_dropped_keeps_nothing(supervise):
    encoded = cut("drop_row", 200, supervise=supervise)
    assert (encoded.cut, encoded.input_ids, encoded.learned, encoded.tokens) == ("row", [], [], [])
    assert encoded.total > 200 and encoded.learns == 0


def test_the_end_of_an_answer_goes_and_its_end_token_with_it():
    encoded = cut("cut_answer", 255)
    assert encoded.cut == "answer" and words(encoded).startswith("b" * 30 + "</s>" + "d") and "</s>" in words(encoded)
    assert not words(encoded).endswith("</s>")


def test_half_a_question_after_the_last_answer_is_not_kept():
    encoded = cut("cut_answer", 190)
    assert kept(encoded).endswith("b" * 30 + "</s>") and len(encoded.input_ids) < 190


def test_the_oldest_turns_go_and_the_system_text_stays():
    encoded = cut("drop_turns", 190)
    assert encoded.cut == "turns" and words(encoded) == "d" * 40 + "</s>"
    assert "S" * 40 in encoded.text and "a" not in encoded.text.replace("assistant", "").replace("<turn>", "")


def test_where_the_last_turns_are_too_long_alone_their_answer_is_cut():
    encoded = cut("drop_turns", 150)
    assert encoded.cut == "answer" and set(words(encoded)) == {"d"}


def test_the_longest_source_loses_its_middle_and_the_answers_stay():
    encoded = cut("cut_source", 240)
    assert encoded.cut == "source" and words(encoded) == "b" * 30 + "</s>" + "d" * 40 + "</s>"
    assert len(encoded.input_ids) <= 240 and kept(encoded).count("c") - 0 < 60


@pytest.mark.parametrize("truncation", TRUNCATIONS[:3])
@pytest.mark.parametrize("most", [60, 120, 190, 230, 255, 1000])
def test_an_answer_that_the_row_excludes_is_learned_under_no_policy(truncation, most):
    messages = (*LONG[:2], replace(LONG[2], train=False), *LONG[3:])
    for supervise in SUPERVISE:
        encoded = cut(truncation, most, messages, supervise=supervise)
        excluded = [token for token in encoded.tokens if token.reason == "excluded"]
        assert not any(token.supervised for token in excluded)
        assert "b" not in words(encoded).replace("Assistant", "")


def test_an_answer_that_the_row_wants_is_learned_where_only_the_last_one_would_be():
    messages = (*LONG[:2], replace(LONG[2], train=True), *LONG[3:])
    assert words(cut("cut_answer", 1000, messages, supervise="last")) == "b" * 30 + "</s>" + "d" * 40 + "</s>"
    assert words(cut("cut_answer", 190, messages, supervise="last")) == "b" * 30 + "</s>"
    assert words(cut("drop_turns", 190, messages, supervise="last")) == "d" * 40 + "</s>"


@pytest.mark.parametrize("truncation", TRUNCATIONS[:3])
@pytest.mark.parametrize("most", [40, 70, 90, 110, 1000])
def test_thoughts_carry_no_loss_where_they_are_not_learned(truncation, most):
    messages = (Message("user", "q" * 30), Message("assistant", "<think>" + "t" * 20 + "</think>\n\n" + "d" * 9))
    encoded = cut(truncation, most, messages, learn_thoughts=False)
    assert set(words(encoded)) <= set("d</s>") and "t" not in words(encoded)
    thoughts = [token for token in encoded.tokens if token.reason == "thought"]
    assert not any(token.supervised for token in thoughts)
    assert words(cut(truncation, 1000, messages, learn_thoughts=False)) == "d" * 9 + "</s>"


@pytest.mark.parametrize("truncation", TRUNCATIONS[:3])
@pytest.mark.parametrize("supervise", SUPERVISE)
@pytest.mark.parametrize("most", [50, 100, 130, 1000])
def test_what_a_tool_gave_back_is_learned_under_no_policy(truncation, supervise, most):
    messages = (
        Message("user", "q" * 30),
        Message("assistant", "c" * 20),
        Message("tool", "R" * 40),
        Message("assistant", "d" * 20),
    )
    encoded = cut(truncation, most, messages, supervise=supervise)
    assert "R" not in words(encoded)
    assert all(token.reason == "result" for token in encoded.tokens if token.text == "R")


def test_plain_text_is_cut_at_its_end():
    example = Example(text="x" * 100, kind="text")
    encoded = encode(example, CHAT, TINY, Policy(max_length=30))
    assert (encoded.cut, len(encoded.input_ids), len(learned(encoded))) == ("answer", 30, 30)
    assert encode(example, CHAT, TINY, Policy(max_length=30, truncation="drop_row")).input_ids == []
