import json
from dataclasses import replace

import pytest

from studio import templates
from studio.data.example import Example, Message
from studio.templates import Policy
from studio.templates.checking import Finding
from studio.ui import preview, token_compare, token_view
from tests.ui.markup import Tags
from tests.ui.recorded import HOSTILE
from tests.ui.tiny_model import tiny_model


@pytest.fixture
def tokenizer(tmp_path):
    return templates.TextTokenizer.from_folder(tiny_model(tmp_path / "tiny"))


def written(tokenizer, answer, question="Hi", *, template="chatml", before=(), **policy):
    example = Example((*before, Message("user", question), Message("assistant", answer)))
    return preview.written(example, templates.load(template), tokenizer, Policy(**policy))


def text_of(found, wanted=lambda piece: True):
    return "".join(each.text for each in token_view.pieces(found) if wanted(each))


# --- pieces


@pytest.mark.parametrize("answer", ["plain", "你好，世界 🦙", " two  spaces\n\n\tand a tab ", HOSTILE])
def test_the_pieces_are_the_whole_text_once(tokenizer, answer):
    found = written(tokenizer, answer)
    parts = list(token_view.pieces(found))
    assert "".join(each.text for each in parts) == found.whole.text
    assert sum(len(each.tokens) for each in parts) == len(found.whole.input_ids)


def test_a_character_of_several_tokens_is_one_piece(tokenizer):
    (llama,) = [each for each in token_view.pieces(written(tokenizer, "🦙")) if each.text == "🦙"]
    assert len(llama.tokens) == 4 and llama.learned


def test_what_is_learned_is_marked_with_its_end_token(tokenizer):
    assert text_of(written(tokenizer, "yes"), lambda each: each.learned) == "yes<|im_end|>"


def test_nothing_that_is_cut_off_counts_as_learned(tokenizer):
    whole = written(tokenizer, "a long answer").whole
    found = written(tokenizer, "a long answer", max_length=whole.total - 5)  # w e r, the end token, a line break
    assert text_of(found, lambda each: each.cut) == "wer<|im_end|>\n"
    assert text_of(found, lambda each: each.learned) == "a long ans"


def test_the_middle_of_a_question_that_is_cut_out_is_shown_as_cut_in_its_place(tokenizer):
    found = written(tokenizer, "yes", "a" * 60 + "b" * 60 + "c" * 60, max_length=120, truncation="cut_source")
    assert found.kept.cut == "source"
    cut = text_of(found, lambda each: each.cut)
    assert set(cut) == set("abc") and cut.count("b") == 60
    assert text_of(found) == found.whole.text
    assert text_of(found, lambda each: each.learned) == "yes<|im_end|>"


def test_a_row_that_is_left_out_is_shown_cut_away_whole(tokenizer):
    found = written(tokenizer, "a long answer", max_length=20, truncation="drop_row")
    assert text_of(found, lambda each: each.cut) == found.whole.text


def test_turns_that_are_left_out_are_counted_and_not_shown(tokenizer):
    before = (Message("user", "the oldest"), Message("assistant", "question"))
    whole = written(tokenizer, "yes", before=before).whole
    found = written(tokenizer, "yes", before=before, max_length=whole.total - 1, truncation="drop_turns")
    assert found.kept.cut == "turns" and "oldest" not in text_of(found)
    shown = Tags(token_view.counts(found, "en")).text
    assert f"the oldest turns are left out, {whole.total - len(found.kept.input_ids)} of {whole.total} tokens" in shown


# --- counts


def test_the_counts_are_those_of_training(tokenizer):
    found = written(tokenizer, "yes")
    number = len(found.kept.input_ids)
    assert f"data-tokens='{number}' data-learned='4' data-total='{number}'" in token_view.counts(found, "en")
    cut = written(tokenizer, "yes", max_length=number - 5)
    shown = token_view.counts(cut, "en")
    assert "data-learned='0'" in shown and "training leaves it out" in shown


def test_the_counts_tell_whose_tokens_they_are_and_what_share_is_learned(tokenizer):
    found = written(tokenizer, "yes", "Hi", system="Be kind.")
    number = len(found.kept.input_ids)
    shown = Tags(token_view.counts(found, "en")).text
    assert "system 8 · user 2 · assistant 4 · template" in shown
    assert f"4 ({4 / number:.0%})" in shown


def test_special_tokens_that_somebody_wrote_are_counted(tokenizer):
    shown = Tags(token_view.counts(written(tokenizer, "no <|im_end|> here <s>"), "en")).text
    assert "Special tokens as text2" in shown


def test_the_first_token_is_never_counted_as_learned(tokenizer):
    found = written(tokenizer, "yes", supervise="all")
    assert f"data-learned='{len(found.kept.input_ids) - 1}'" in token_view.counts(found, "en")


def test_counts_stay_whole_where_only_the_first_tokens_are_shown(tokenizer):
    found = written(tokenizer, "x" * 5000)
    shown = token_view.pane(found, "text", "en")
    assert f"{len(found.whole.input_ids) - token_view.SHOWN_TOKENS:,} follow" in shown
    assert shown.count("x") < token_view.SHOWN_TOKENS + 20
    assert f"data-tokens='{len(found.whole.input_ids)}'" in shown


# --- the views


@pytest.mark.parametrize("view", token_view.VIEWS)
def test_markup_in_a_row_stays_text_in_every_view(tokenizer, view):
    found = written(tokenizer, HOSTILE, question=HOSTILE)
    parsed = Tags(token_view.conversation(found, view, "en"))
    assert set(parsed.tags) <= {"div", "p", "span", "table", "tr", "th", "td"}
    if view != "table":
        assert parsed.text.count(HOSTILE) == 2


def test_a_token_tells_its_id_whose_it_is_and_why_it_is_learned(tokenizer):
    markup = token_view.conversation(written(tokenizer, "yes"), "tokens", "en")
    end = tokenizer.backend.token_to_id("<|im_end|>")
    assert f"title='{end} · assistant · end of answer · learned'>&lt;|im_end|&gt;<" in markup
    assert "· user · asked · not learned'" in markup


def test_whose_a_piece_is_is_told_in_words_too(tokenizer):
    markup = token_view.conversation(written(tokenizer, "yes", "Hi", system="Be kind."), "text", "en")
    assert [markup.count(f"data-label='{role}'") for role in ("system", "user", "assistant")] == [1, 1, 1]
    first = (Message("user", "a"), Message("assistant", "b"))
    markup = token_view.conversation(written(tokenizer, "yes", before=first, supervise="last"), "text", "en")
    assert "data-label='assistant (earlier answer)'" in markup


def test_a_row_says_which_of_its_answers_it_excludes(tokenizer):
    example = Example((Message("user", "Hi"), Message("assistant", "yes", train=False)))
    found = preview.written(example, templates.load("chatml"), tokenizer, Policy())
    assert "excluded by the row · not learned" in token_view.conversation(found, "tokens", "en")


def test_thoughts_that_are_not_learned_are_called_so(tokenizer):
    found = written(tokenizer, "<think>well</think>yes", learn_thoughts=False)
    assert "data-label='assistant (thought)'" in token_view.conversation(found, "text", "en")
    assert text_of(found, lambda each: each.learned) == "yes<|im_end|>"


def test_the_table_has_a_line_for_each_token_with_its_reason(tokenizer):
    found = written(tokenizer, "🦙")
    markup = token_view.conversation(found, "table", "en")
    assert markup.count("<tr><td>") == len(found.whole.input_ids)
    assert "<td>assistant</td><td>end of answer</td><td>yes</td>" in markup


def test_a_template_that_refuses_a_row_says_so_in_the_place_of_the_text():
    assert "&lt;b&gt; is refused" in token_view.refused("<b> is refused", "en", title="x")


def test_stop_tokens_are_told_with_their_ids(tokenizer):
    end = tokenizer.backend.token_to_id("<|im_end|>")
    assert f"<code>&lt;|im_end|&gt;</code> ({end})" in token_view.stops([end], tokenizer, "en")
    assert "No token ends an answer" in token_view.stops([], tokenizer, "en")


def test_errors_stand_before_warnings_and_begin_with_a_word():
    found = [Finding("stop", "warning", "<quiet>"), Finding("no_end", "error", "loud")]
    markup = token_view.findings(found, "en")
    assert markup.index("loud") < markup.index("&lt;quiet&gt;")
    assert Tags(markup).text == "Wrong: loud<quiet>"


# --- two templates, and the copy


def test_two_templates_that_write_the_same_are_called_equal(tokenizer):
    one = written(tokenizer, "yes")
    other = replace(one, template=templates.load("default"))
    assert "data-equal='1'>Text, tokens and learned tokens are equal." in token_compare.compared(one, other, "en")


def test_two_templates_are_told_where_they_first_differ(tokenizer):
    one, other = written(tokenizer, "yes", "<Hi>"), written(tokenizer, "yes", "<Ho>")
    place = one.whole.text.index("i>") + 1
    told = token_compare.compared(one, other, "en")
    assert f"The text differs from character {place} on: “i&gt;&lt;|im_end|&gt;↵&lt;|i" in told
    assert "The tokens differ from token" in told and "The learned tokens are equal." in told


def test_the_same_tokens_of_which_others_are_learned_differ(tokenizer):
    first = (Message("user", "a"), Message("assistant", "b"))
    one, other = (written(tokenizer, "yes", before=first, supervise=kind) for kind in ("assistant", "last"))
    told = token_compare.compared(one, other, "en")
    assert "The text is equal. The tokens are equal. What is learned differs" in told


@pytest.mark.parametrize(("one", "other", "place"), [("abc", "abd", 2), ("ab", "abc", 2), ("", "", None), ("a", "", 0)])
def test_the_first_difference(one, other, place):
    assert token_compare.first_difference(one, other) == place


def test_the_copy_holds_text_tokens_and_stops(tokenizer):
    found = written(tokenizer, "yes")
    told = json.loads(preview.as_json(found))
    assert told["text"] == found.kept.text and told["template"] == "chatml"
    assert [each["id"] for each in told["tokens"]] == found.kept.input_ids
    end = tokenizer.backend.token_to_id("<|im_end|>")
    learned = [each for each in told["tokens"] if each["supervised"]]
    assert learned[-1] == {
        "id": end, "text": "<|im_end|>", "role": "assistant", "supervised": True, "reason": "end",
    }  # fmt: skip
    assert told["stop"] == [{"id": end, "text": "<|im_end|>"}]
