"""Near duplicates against a plain comparison of all pairs, in spaced and in unspaced writing."""

import random

import pytest

from studio.data.audit.near import Sketches, jaccard, pieces
from studio.data.audit.pace import Pace

WORDS = [f"{start}{end}" for start in ("ba", "ke", "lo", "mi", "tu") for end in ("n", "r", "s", "t", "x", "la", "do")]
HAN = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜"


@pytest.fixture
def sketches(tmp_path):
    made = []

    def make(texts, similarity=0.8):
        found = Sketches(tmp_path, f"test{len(made)}", similarity)
        made.append(found)
        for position, text in enumerate(texts):
            found.add(position, text)
        return found

    yield make
    for each in made:
        each.close()


@pytest.fixture
def pace():
    return Pace(lambda event: None, lambda: False)


def similar(one, other):
    return jaccard(pieces(one), pieces(other))


def plain(text, size):
    words = text.split() if size == 3 else list(text)
    return {tuple(words[place : place + size]) for place in range(len(words) - size + 1)}


@pytest.mark.parametrize(("letters", "joint", "size"), [(WORDS, " ", 3), (HAN, "", 5)])
def test_similarity_is_the_share_of_common_pieces(letters, joint, size):
    draw = random.Random(1)
    one = draw.choices(letters, k=60)
    other = one[:40] + draw.choices(letters, k=20)
    one, other = joint.join(one), joint.join(other)
    sets = plain(one, size), plain(other, size)
    assert similar(one, other) == pytest.approx(len(sets[0] & sets[1]) / len(sets[0] | sets[1]))


def test_case_and_white_space_do_not_count_and_the_order_of_words_does():
    assert similar("The  Fox\nsleeps here", "the fox sleeps HERE") == 1.0
    assert similar("the fox bites the dog", "the dog bites the fox") < 0.5


def test_a_text_shorter_than_a_piece_is_one_piece_and_an_empty_one_is_near_nothing():
    assert similar("OK", "ok") == 1.0 and similar("好", "好") == 1.0
    assert similar("", "") == 0.0 and similar("ok", "no") == 0.0


@pytest.mark.parametrize(("letters", "joint"), [(WORDS, " "), (HAN, "")])
@pytest.mark.parametrize("similarity", [0.6, 0.8, 0.95])
def test_what_is_found_is_near_and_nearly_all_that_is_near_is_found(sketches, pace, letters, joint, similarity):
    draw = random.Random(2)
    texts = [draw.choices(letters, k=80) for _ in range(150)]
    for text in texts[:75]:
        changed = list(text)
        for _ in range(draw.randrange(6)):
            changed[draw.randrange(80)] = draw.choice(letters)
        texts.append(changed)
    texts = [joint.join(text) for text in texts]
    found = sketches(texts, similarity).within(pace)
    near = {place for place in range(150, 225) if similar(texts[place], texts[place - 150]) >= similarity}
    assert {position for position, _ in found.pairs.tolist()} <= near
    assert len(found.pairs) >= 0.95 * len(near) > 10
    for (position, first), likeness in zip(found.pairs.tolist(), found.similarity.tolist(), strict=True):
        assert first == position - 150 and likeness == pytest.approx(similar(texts[position], texts[first]))


def test_what_is_dropped_is_near_something_that_stays(sketches, pace):
    words = WORDS * 3
    chain = [" ".join([*words[:place], *["new"] * (place > 0), *words[place + 1 :]]) for place in range(0, 90, 3)]
    pairs = sketches(chain, 0.8).within(pace).pairs
    assert len(pairs) and not set(pairs[:, 1].tolist()) & set(pairs[:, 0].tolist())


def test_a_comparison_with_another_set_looks_only_across(sketches, pace):
    base = " ".join(WORDS)
    texts = [base, "quite another text", base + " and more", base + " and more"]
    assert sketches(texts).across(2, pace).pairs.tolist() == [[2, 0], [3, 0]]


def test_a_pattern_that_thousands_share_does_not_make_every_pair_be_compared(sketches, pace):
    texts = [f"Please translate the following sentence into French for me now: number {n} {n * 7}" for n in range(3000)]
    found = sketches(texts, 0.95).within(pace)
    assert len(found.pairs) == 0


def test_a_long_text_is_taken_in_parts(sketches, pace):
    draw = random.Random(3)
    long = " ".join(str(draw.randrange(10**6)) for _ in range(30_000))
    assert sketches([long, long + " end"]).within(pace).pairs.tolist() == [[1, 0]]
