"""Which rows a run trains on, holds out and leaves, and what stands against it."""

import json

import pytest

from studio.data import registry
from studio.data.selection import HELD, LEFT, TESTED, TRAINED, balanced, faulty_rows, group_of, select
from studio.errors import DataError, SpecError
from studio.specs import DataSpec

pytestmark = pytest.mark.usefixtures("studio_home")


@pytest.fixture
def added(tmp_path):
    """added("name", rows or lines) registers them and gives the name."""

    def add(name, rows, **how):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), "utf-8")
        return registry.add(path, name, **how).name

    return add


def asked(count, **more):
    return [{"prompt": f"q{n}", "completion": f"a{n}"} | {k: v(n) for k, v in more.items()} for n in range(count)]


def chosen(part, side=TRAINED):
    return [example.messages[0].content for at, example in part.examples() if at == side]


def test_all_rows_are_trained_on_in_the_order_of_the_file(added):
    (part,) = select(DataSpec(datasets=(added("a", asked(5)),)))
    assert chosen(part) == ["q0", "q1", "q2", "q3", "q4"] and chosen(part, HELD) == []


def test_held_out_rows_are_neither_trained_on_nor_parted_from_equal_ones_in_another_set(added):
    names = (added("a", asked(30)), added("b", [*asked(10), *asked(40)[30:]]))
    parts = select(DataSpec(datasets=names, validation_share=0.3))
    train, held = ([q for part in parts for q in chosen(part, side)] for side in (TRAINED, HELD))
    assert len(train) + len(held) == 50 and len(held) == 15 and not set(train) & set(held)
    again = select(DataSpec(datasets=names, validation_share=0.3))
    assert [part.sides for part in parts] == [part.sides for part in again]


def test_rows_of_a_group_stay_on_one_side(added):
    name = added("a", asked(40, meta=lambda n: {"user": n // 8} if n < 32 else None))
    (part,) = select(DataSpec(datasets=(name,), validation_share=0.25, group="meta.user"))
    held = {int(question[1:]) for question in chosen(part, HELD)}
    assert len(held) == 10
    assert all(
        set(range(8 * user, 8 * user + 8)) & held in (set(), set(range(8 * user, 8 * user + 8))) for user in range(4)
    )


def test_a_group_that_no_row_has_is_refused_with_the_columns_that_there_are(added):
    with pytest.raises(DataError, match=r"no row has the column 'usr'\. Known: prompt, completion, user\."):
        select(DataSpec(datasets=(added("a", asked(4, user=str)),), validation_share=0.5, group="usr"))


def test_groups_are_equal_where_their_values_are():
    values = ({"g": 1}, {"g": "1"}, {"g": True}, {"g": [1]}, {"g": {"a": 1, "b": 2}})
    assert len({group_of(each, "g") for each in values}) == 5
    assert group_of({"g": {"b": 2, "a": 1}}, "g") == group_of(values[4], "g")
    assert group_of({"g": None}, "g") is group_of({}, "g") is None


def test_a_limited_number_of_rows_is_drawn_by_the_seed_and_kept_in_their_order(added):
    name = added("a", asked(200))
    drawn = [chosen(select(DataSpec(datasets=(name,), max_samples=20, seed=seed))[0]) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2] and all(len(rows) == 20 for rows in drawn)
    assert [int(q[1:]) for q in drawn[0]] == sorted(int(q[1:]) for q in drawn[0])
    (first,) = select(DataSpec(datasets=(name,), max_samples=20, shuffle=False))
    assert chosen(first) == [f"q{n}" for n in range(20)]


def test_rows_are_held_out_of_those_that_were_drawn(added):
    name = added("a", asked(100))
    (part,) = select(DataSpec(datasets=(name,), max_samples=20, validation_share=0.25))
    counts = [part.sides.count(side) for side in (LEFT, TRAINED, HELD)]
    assert counts == [80, 15, 5]


def test_faulty_rows_refuse_the_run_unless_they_are_to_be_skipped(added):
    bad = added("bad", [*asked(2), {"prompt": "x"}, "oops", *asked(4)[2:]])
    data = DataSpec(datasets=(added("good", asked(2)), bad))
    with pytest.raises(SpecError) as caught:
        select(data)
    (fault,) = caught.value.faults
    assert fault.field == "data.skip_faulty" and [fault] == faulty_rows(data)
    assert "'bad' has 2 faulty rows of 6. Row 3 of bad.jsonl: completion is missing" in fault.reason
    assert "Row 4 of bad.jsonl: is not valid JSON" in fault.reason
    skipping = data.model_copy(update={"skip_faulty": True})
    assert faulty_rows(skipping) == []
    _, part = select(skipping)
    assert part.faulty == 2 and chosen(part) == ["q0", "q1", "q2", "q3"]


def test_answers_marked_bad_are_counted_and_told(added):
    rows = [row | {"label": n % 3 > 0} for n, row in enumerate(asked(9))]
    (part,) = select(DataSpec(datasets=(added("thumbs", rows),)))
    assert chosen(part) == ["q1", "q2", "q4", "q5", "q7", "q8"]
    assert part.unlearned_told() == ["3 of 9 rows of 'thumbs' are marked bad and are not learned from."]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row | {"label": False} for row in asked(3)], "all its rows are marked bad. Add rows with good answers"),
        ([{"prompt": f"q{n}"} for n in range(3)], "all its rows hold a prompt without an answer. Map a column"),
    ],
)
def test_a_dataset_that_nothing_can_be_learned_from_is_refused_with_the_reason(added, rows, said):
    with pytest.raises(DataError, match=f"Nothing can be learned from 'a': {said}"):
        select(DataSpec(datasets=(added("a", rows),)))


def test_f25_rows_that_changed_since_they_were_added_are_refused(added):
    name = added("a", asked(3))
    path = registry.get(name).path
    path.write_bytes(path.read_bytes().replace(b"a1", b"b1"))
    with pytest.raises(DataError, match="changed since it was added"):
        select(DataSpec(datasets=(name,)))


def test_progress_is_told_over_all_datasets(added):
    told = []
    names = (added("a", asked(3)), added("b", asked(4)))
    select(DataSpec(datasets=names), tell=lambda done, total: told.append((done, total)))
    assert told == [(7, 7)]


def test_no_dataset_is_refused():
    with pytest.raises(DataError, match="No dataset is chosen"):
        select(DataSpec())


def test_test_rows_are_held_out_beside_those_for_validation_which_stay_the_same(added):
    name = added("a", [*asked(45), *asked(50)[40:]])  # five of them are there twice
    (without,) = select(DataSpec(datasets=(name,), validation_share=0.1, seed=123))
    (part,) = select(DataSpec(datasets=(name,), validation_share=0.1, test_share=0.2, seed=123))
    assert [part.sides.count(side) for side in (TRAINED, HELD, TESTED)] == [38, 6, 11]
    assert [side == HELD for side in without.sides] == [side == HELD for side in part.sides]
    found = [{e.messages[0].content for _, e in part.examples(wanted=(side,))} for side in (TRAINED, HELD, TESTED)]
    assert not found[0] & found[1] and not found[0] & found[2] and not found[1] & found[2]
    assert len(list(part.examples())) == 44, "test rows come only to those who ask for them"


def test_balanced_labels_are_drawn_before_rows_are_held_out(added):
    rows = [{"text": f"t{n}", "label": "spam" if n % 10 == 0 else "ham"} for n in range(100)]
    data = DataSpec(datasets=(added("sms", rows),), validation_share=0.1, test_share=0.2, seed=123)
    (part,) = select(data, "classify", balance=True)
    assert [part.sides.count(side) for side in (LEFT, TRAINED, HELD, TESTED)] == [80, 14, 2, 4]
    labels = [example.label for _, example in part.examples(wanted=(TRAINED, HELD, TESTED))]
    assert labels.count("spam") == labels.count("ham") == 10
    (again,) = select(data, "classify", balance=True)
    (other,) = select(data.model_copy(update={"seed": 7}), "classify", balance=True)
    assert part.sides == again.sides != other.sides


def test_labels_are_balanced_over_all_datasets_and_among_the_rows_that_were_drawn(added):
    names = (
        added("a", [{"text": f"a{n}", "label": "yes"} for n in range(30)]),
        added("b", [{"text": f"b{n}", "label": "no"} for n in range(12)]),
    )
    parts = select(DataSpec(datasets=names, max_samples=20, validation_share=0.25), "classify", balance=True)
    assert [len(part.sides) - part.sides.count(LEFT) for part in parts] == [12, 12]
    assert sum(part.sides.count(HELD) for part in parts) == 6


def test_without_a_seed_the_first_rows_of_each_label_stay():
    assert list(balanced([0, 0, 1, 0, 1, 0], None)) == [1, 1, 1, 0, 1, 0]


def test_two_shares_that_leave_nothing_are_refused():
    with pytest.raises(ValueError, match=r"data\.test_share: and data\.validation_share leave no row"):
        DataSpec(datasets=("a",), validation_share=0.5, test_share=0.5)
