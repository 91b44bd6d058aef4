"""Rows on disk: what is written is read again, from any row, and found."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.data import store
from studio.data.example import Row
from studio.errors import DataError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**39), 10**39)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
GOOD = st.builds(Row, st.integers(1, 2000), st.dictionaries(TEXT, VALUE, max_size=4), file=st.sampled_from("ab"))
BAD = st.builds(Row, st.integers(1, 2000), st.none(), st.just("is broken."), st.sampled_from("ab"), TEXT)


def written(path, rows):
    writer = store.Writer(path)
    for row in rows:
        writer.write(row)
    writer.close()
    return writer


def numbered(count):
    return [Row(number, {"text": f"row {number}"}, None, "a.jsonl") for number in range(1, count + 1)]


@settings(max_examples=60)
@given(rows=st.lists(GOOD | BAD, max_size=30))
def test_what_is_written_is_read_again(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "x.rows"
    written(path, rows)
    assert list(store.read(path)) == rows


@pytest.mark.parametrize("start", [0, 1, 255, 256, 257, 700, 999, 1000, 5000])
def test_reading_starts_at_any_row(tmp_path, start):
    rows = numbered(1000)
    written(tmp_path / "x.rows", rows)
    assert list(store.read(tmp_path / "x.rows", start)) == rows[start:]


def test_a_lost_index_is_made_again(tmp_path):
    path = tmp_path / "x.rows"
    rows = numbered(600)
    written(path, rows)
    before = store.index_of(path).read_bytes()
    store.index_of(path).unlink()
    assert next(store.read(path, 599)) == rows[599]
    assert store.index_of(path).read_bytes() == before


def test_the_hash_is_that_of_the_content_and_of_nothing_else(tmp_path):
    one, same, other = (written(tmp_path / f"{place}.rows", numbered(n)) for place, n in enumerate((3, 3, 4)))
    assert one.sha256 == same.sha256 != other.sha256


def test_rows_are_found_whatever_the_case_and_told_by_their_position(tmp_path):
    rows = numbered(2000)
    rows[700] = Row(701, {"text": 'Say "HELLO"\nto 你好', "n": 12}, None, "a.jsonl")
    rows[1500] = Row(1501, None, "is broken.", "a.jsonl", '{"text": "hello')
    path = tmp_path / "x.rows"
    written(path, rows)
    assert [position for position, _ in store.search(path, "hello")[0]] == [700, 1500]
    assert store.search(path, '"hello"\nTO 你好')[0] == [(700, rows[700])]
    assert store.search(path, "text") == ([(1500, rows[1500])], None)  # the name of a column is no content
    assert store.search(path, "row 1999", start=1998)[0] == [(1998, rows[1998])]
    assert store.search(path, "row 1999", start=1999) == ([], None)


def test_a_search_goes_on_where_it_ended(tmp_path):
    path = tmp_path / "x.rows"
    written(path, numbered(1000))
    seen, start = [], 0
    while start is not None:
        found, start = store.search(path, "row 9", start=start, count=30)
        seen += [row.number for _, row in found]
    assert seen == [n for n in range(1, 1001) if str(n).startswith("9")]


def test_an_abandoned_store_leaves_nothing(tmp_path):
    writer = store.Writer(tmp_path / "x.rows")
    writer.write(numbered(1)[0])
    writer.abandon()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_store_says_so(tmp_path):
    path = tmp_path / "x.rows"
    written(path, numbered(10))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"is damaged near row 10\. Remove the dataset"):
        list(store.read(path))
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        list(store.read(path))


def test_a_row_is_one_line_of_json_for_other_programs(tmp_path):
    path = tmp_path / "x.rows"
    written(path, numbered(3))
    assert [json.loads(line) for line in path.read_text().splitlines()][1] == {"text": "row 2"}
