import pytest

from studio import templates
from studio.data.example import Example, Message
from studio.ui import token_view
from tests.ui.markup import Tags
from tests.ui.recorded import HOSTILE
from tests.ui.tiny_model import tiny_model


@pytest.fixture
def tokenizer(tmp_path):
    return templates.TextTokenizer.from_folder(tiny_model(tmp_path / "tiny"))


def encoded(tokenizer, answer, question="Hi", **options):
    example = Example((Message("user", question), Message("assistant", answer)))
    return templates.encode(example, templates.load("chatml"), tokenizer, **options)


def pieces(tokenizer, found, limit=None):
    return token_view.pieces(found, tokenizer.special_strings, limit)


@pytest.mark.parametrize("answer", ["plain", "你好，世界 🦙", " two  spaces\n\n\tand a tab ", HOSTILE])
def test_the_pieces_are_the_whole_text_once(tokenizer, answer):
    found = encoded(tokenizer, answer)
    parts = pieces(tokenizer, found)
    assert "".join(each.text for each in parts) == found.text
    assert sum(len(each.tokens) for each in parts) == len(found.input_ids)


def test_a_character_of_several_tokens_is_one_piece(tokenizer):
    parts = pieces(tokenizer, encoded(tokenizer, "🦙"))
    (llama,) = [each for each in parts if each.text == "🦙"]
    assert len(llama.tokens) == 4 and llama.learned


def test_what_is_learned_is_marked_with_its_end_token(tokenizer):
    parts = pieces(tokenizer, encoded(tokenizer, "yes"))
    assert "".join(each.text for each in parts if each.learned) == "yes<|im_end|>"


def test_nothing_beyond_the_limit_counts_as_learned(tokenizer):
    found = encoded(tokenizer, "a long answer")
    parts = pieces(tokenizer, found, limit=len(found.input_ids) - 5)  # which are: w e r, the end token, a line break
    assert "".join(each.text for each in parts if each.cut) == "wer<|im_end|>\n"
    assert "".join(each.text for each in parts if each.learned) == "a long ans"


def test_the_counts_agree_with_training(tokenizer):
    found = encoded(tokenizer, "yes")
    total = len(found.input_ids)
    assert f"data-tokens='{total}' data-learned='4'" in token_view.counts(found, 512, "en")
    cut = token_view.counts(found, total - 5, "en")
    assert "data-learned='0'" in cut
    assert "5 tokens lie beyond the limit" in cut and "training leaves it out" in cut


def test_the_first_token_is_never_counted_as_learned(tokenizer):
    found = encoded(tokenizer, "yes", supervise="all")
    assert f"data-learned='{len(found.input_ids) - 1}'" in token_view.counts(found, 512, "en")


@pytest.mark.parametrize("view", token_view.VIEWS)
def test_markup_in_a_row_stays_text_in_every_view(tokenizer, view):
    found = encoded(tokenizer, HOSTILE, question=HOSTILE)
    parsed = Tags(token_view.shown(found, tokenizer.special_strings, 512, view, "en"))
    assert set(parsed.tags) <= {"div", "p", "span", "table", "tr", "th", "td"}
    if view != "table":
        assert parsed.text.count(HOSTILE) == 2


def test_a_token_tells_its_id(tokenizer):
    found = encoded(tokenizer, "yes")
    markup = token_view.shown(found, tokenizer.special_strings, 512, "tokens", "en")
    end = tokenizer.backend.token_to_id("<|im_end|>")
    assert f"title='{end} · learned'>&lt;|im_end|&gt;<" in markup


def test_the_table_has_a_line_for_each_token(tokenizer):
    found = encoded(tokenizer, "🦙")
    markup = token_view.shown(found, tokenizer.special_strings, 512, "table", "en")
    assert markup.count("<tr><td>") == len(found.input_ids)


def test_a_very_long_row_is_shown_in_part_and_says_so(tokenizer):
    found = encoded(tokenizer, "x" * 5000)
    markup = token_view.shown(found, tokenizer.special_strings, None, "text", "en")
    assert f"{len(found.input_ids) - token_view.SHOWN_TOKENS:,} follow" in markup
    assert markup.count("x") < token_view.SHOWN_TOKENS + 10


def test_stop_tokens_are_told_with_their_ids(tokenizer):
    end = tokenizer.backend.token_to_id("<|im_end|>")
    assert f"<code>&lt;|im_end|&gt;</code> ({end})" in token_view.stops([end], tokenizer, "en")
    assert "No token ends an answer" in token_view.stops([], tokenizer, "en")
