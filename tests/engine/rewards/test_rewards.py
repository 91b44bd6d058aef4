"""What an answer is worth: by a reference, by its last number, by a file of the user's."""

from decimal import Decimal

import pytest

from studio.engine.rewards.exact_match import exact_match
from studio.engine.rewards.file import from_file
from studio.engine.rewards.number_match import last_number, number_match
from studio.errors import StudioError


def test_an_exact_match_ignores_only_white_space_at_the_ends():
    answers = [" positive\n", "Positive", "positive.", "negative"]
    assert exact_match(completions=answers, reference=["positive"] * 3 + [""]) == [1.0, 0.0, 0.0, None]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3 + 4 = 7.", "7"),
        ("#### 1,234", "1234"),
        ("It is −5", "-5"),
        ("2.50 dollars", "2.5"),
        ("from 10 to 20, so 10", "10"),
        ("1,2,3", "3"),
        ("答案是 42。", "42"),
    ],
)
def test_the_last_number_of_an_answer_counts(text, number):
    assert last_number(text) == Decimal(number)


def test_numbers_match_however_they_are_written():
    answers = ["so 1234.0", "12", "none"]
    assert number_match(completions=answers, reference=["#### 1,234", "13", "5"]) == [1.0, 0.0, 0.0]
    assert number_match(completions=["7"], reference=["seven"]) == [None]


def written(tmp_path, text):
    path = tmp_path / "mine.py"
    path.write_text(text)
    return path


def test_a_file_of_the_users_scores_answers(tmp_path):
    code = "def reward(prompts, completions, reference, **more):\n    return [len(each) for each in completions]\n"
    reward = from_file(written(tmp_path, code))
    assert reward(prompts=["a", "b"], completions=["x", "xyz"], reference=["", ""]) == [1.0, 3.0]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("x = 1\n", "has no function reward"),
        ("def reward(:\n", "line 1: SyntaxError"),
        ("import nothing_of_this_name\n", "line 1: ModuleNotFoundError"),
        ("def reward(**_):\n    return [1]\n", "a list of 2 numbers"),
        ("def reward(**_):\n    return 1\n", "not int"),
        ("def reward(**_):\n    return ['a', 'b']\n", "returned 'a'"),
        ("def reward(**_):\n    return [1, float('nan')]\n", "returned nan"),
        ("def reward(**_):\n\n    return 1 / 0\n", "line 3: ZeroDivisionError"),
    ],
)
def test_a_fault_in_the_file_is_told_with_its_line(tmp_path, code, said):
    with pytest.raises(StudioError, match=r"mine\.py") as caught:
        from_file(written(tmp_path, code))(prompts=["a", "b"], completions=["x", "y"], reference=["", ""])
    assert said in str(caught.value)


def test_a_missing_file_is_told_with_the_way_to_name_one(tmp_path):
    with pytest.raises(StudioError, match="--reward-file"):
        from_file(tmp_path / "none.py")
