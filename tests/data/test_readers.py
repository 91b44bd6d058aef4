"""Files of every kind and every fault: a bad row is a fault on that row, a bad file is a DataError."""

import pyarrow
import pytest
from pyarrow import parquet

from studio.data import readers
from studio.errors import DataError


@pytest.fixture
def rows_of(tmp_path):
    def write(name: str, content: str | bytes):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return list(readers.read(path))

    return write


def faults(rows):
    return {row.number: row.fault for row in rows if row.fault}


def test_f01_a_broken_line_is_a_fault_on_that_row_and_the_others_go_on(rows_of):
    rows = rows_of("a.jsonl", '{"a": 1}\n{"a": oops}\n{"a": 3}\n')
    assert [row.values for row in rows] == [{"a": 1}, None, {"a": 3}]
    assert "not valid JSON" in faults(rows)[2]


def test_f02_a_truncated_last_line_is_a_fault_on_that_row(rows_of):
    assert list(faults(rows_of("a.jsonl", '{"a": 1}\n{"a": "b'))) == [2]


def test_f03_rows_that_are_no_objects_are_faults(rows_of):
    rows = rows_of("a.jsonl", '[1, 2]\nnull\n"text"\n{"a": 1}\n')
    assert list(faults(rows)) == [1, 2, 3]
    assert "[1, 2]" in faults(rows)[1]


def test_f07_a_duplicate_key_is_a_fault(rows_of):
    assert "key 'a' twice" in faults(rows_of("a.jsonl", '{"a": 1, "a": 2}'))[1]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 400])
def test_f08_numbers_that_json_does_not_have_are_faults(rows_of, number):
    rows = rows_of("a.json", f'[{{"a": {number}}}, {{"a": 1}}]')
    assert list(faults(rows)) == [1]
    assert rows[1].values == {"a": 1}


@pytest.mark.parametrize("escape", ["\\ud800", "\\u0000"])
def test_f09_f10_characters_that_are_none_are_faults(rows_of, escape):
    assert list(faults(rows_of("a.jsonl", f'{{"a": "x{escape}y"}}\n{{"a": "\\ud83d\\ude42"}}'))) == [1]


@pytest.mark.parametrize(
    ("encoding", "text", "guess"),
    [("utf-16-le", "hello", "UTF-16"), ("latin-1", "déjà vu", "Latin-1"), ("gbk", "你好，世界", "GB18030")],
)
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "json"])
def test_f11_another_encoding_is_named_by_a_guess(rows_of, encoding, text, guess, suffix):
    content = f"a\n{text}\n" if suffix == "csv" else f'{{"a": "{text}"}}\n' * 4
    with pytest.raises(DataError, match=f"not UTF-8 text, but looks like {guess}"):
        rows_of(f"a.{suffix}", content.encode(encoding))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
def test_f12_byte_order_marks_and_crlf_are_accepted(rows_of, encoding, suffix):
    text = {
        "jsonl": '{"a": "é"}\r\n{"a": "你"}\r\n',
        "json": '[{"a": "é"},\r\n{"a": "你"}]\r\n',
        "csv": "a\r\né\r\n你\r\n",
    }
    assert [row.values for row in rows_of(f"a.{suffix}", text[suffix].encode(encoding))] == [{"a": "é"}, {"a": "你"}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv"])
def test_f13_an_empty_file_has_no_rows(rows_of, name):
    assert rows_of(name, "") == []


@pytest.mark.parametrize(("name", "joint"), [("a.jsonl", "\n"), ("a.json", ",")])
def test_f14_deep_nesting_is_a_fault_on_its_row(rows_of, name, joint):
    deep = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"
    text = joint.join(['{"a": 1}', deep, '{"a": 3}'])
    rows = rows_of(name, f"[{text}]" if name.endswith(".json") else text)
    assert faults(rows) == {2: "is nested too deeply to be read."}
    assert rows[2].values == {"a": 3}


@pytest.mark.parametrize("broken", ['{"a" 2}', '{"a": "x" "y"}', "{'a': 2}", '{"a": 2} {"a": 3}', "oops"])
def test_a_broken_element_of_an_array_leaves_the_others_readable(rows_of, broken):
    rows = rows_of("a.json", f'[{{"a": 1}}, {broken}, {{"a": "]}}"}}]')
    assert list(faults(rows)) == [2]
    assert rows[-1].values == {"a": "]}"}


@pytest.mark.parametrize("cut", ['[{"a": 1}, {"a"', '[{"a": 1}', '[{"a": 1},'])
def test_an_array_that_ends_early_keeps_its_whole_rows_and_has_a_fault(rows_of, cut):
    rows = rows_of("a.json", cut)
    assert rows[0].values == {"a": 1}
    assert rows[-1].fault and len(faults(rows)) in (1, 2)


def test_text_after_an_array_is_a_fault(rows_of):
    assert list(faults(rows_of("a.json", '[{"a": 1}] [{"a": 2}]'))) == [2]


def test_f21_content_decides_between_json_and_json_lines(rows_of):
    lines, array = '{"a": 1}\n{"a": 2}\n', '[\n{"a": 1},\n{"a": 2}\n]'
    assert [row.values for row in rows_of("a.json", lines)] == [{"a": 1}, {"a": 2}]
    assert [row.values for row in rows_of("a.jsonl", array)] == [{"a": 1}, {"a": 2}]
    assert [row.values for row in rows_of("b.jsonl", '[{"a": 1}, {"a": 2}]')] == [{"a": 1}, {"a": 2}]


def test_rows_under_one_key_of_an_object_are_found(rows_of):
    assert [row.values for row in rows_of("a.json", '{"version": 1,\n "data": [{"a": 1}, {"a": 2}]}')] == [
        {"a": 1},
        {"a": 2},
    ]
    one = '{"messages": [{"role": "user", "content": "x"}]}'
    assert len(rows_of("b.json", one)) == 1


def test_blank_lines_are_no_rows_but_numbers_stay_those_of_the_lines(rows_of):
    assert [row.number for row in rows_of("a.jsonl", '{"a": 1}\n\n{"a": 2}\n')] == [1, 3]


def test_csv_cells_may_hold_commas_quotes_and_line_breaks(rows_of):
    rows = rows_of("a.csv", 'text,label\n"one, ""two""\nthree",x\n\nfour,y\n')
    assert [row.values for row in rows] == [{"text": 'one, "two"\nthree', "label": "x"}, {"text": "four", "label": "y"}]


def test_csv_rows_of_another_width_are_faults(rows_of):
    rows = rows_of("a.csv", "a,b\n1,2\n1\n1,2,3\n3,4\n")
    assert list(faults(rows)) == [2, 3]
    assert "1 cells" in faults(rows)[2]


def test_an_unclosed_quote_is_a_fault(rows_of):
    assert list(faults(rows_of("a.csv", 'a,b\n1,2\n"3,4\n'))) == [2]


def test_a_cell_may_be_longer_than_the_default_of_the_csv_module(rows_of):
    assert len(rows_of("a.csv", "a\n" + "x" * 200_000)[0].values["a"]) == 200_000


def test_quotation_marks_in_tab_separated_text_are_plain(rows_of):
    rows = rows_of("a.tsv", 'label\ttext\nham\t"well\nspam\tsaid"\n')
    assert [row.values["text"] for row in rows] == ['"well', 'said"']


def test_semicolons_separate_where_the_header_has_them(rows_of):
    assert rows_of("a.csv", "a;b\n1,5;2\n")[0].values == {"a": "1,5", "b": "2"}


def test_a_column_name_twice_is_refused(rows_of):
    with pytest.raises(DataError, match="'a' is there twice"):
        rows_of("a.csv", "a,b,a\n1,2,3\n")


def test_parquet_rows_are_read_with_nested_values(tmp_path):
    rows = [{"messages": [{"role": "user", "content": f"{index}"}], "n": index} for index in range(2500)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert [row.values for row in readers.read(tmp_path / "a.parquet")] == rows


def test_a_file_that_is_not_parquet_is_refused(rows_of):
    with pytest.raises(DataError, match=r"a\.parquet is not a readable parquet file"):
        rows_of("a.parquet", b"PAR1 oh no PAR1")


def test_f20_a_parquet_bomb_is_refused_before_it_unfolds(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_PARQUET_BYTES", 8 * 1024**2)
    bomb = pyarrow.table({"a": pyarrow.array(["x" * 100_000] * 1000).dictionary_encode().cast("string")})
    parquet.write_table(bomb, tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 10_000
    with pytest.raises(DataError, match="unfolds to more than"):
        list(readers.read(tmp_path / "a.parquet"))


def test_declared_rows_above_the_bound_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_ROWS", 10)
    parquet.write_table(pyarrow.table({"a": list(range(11))}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="declares 11 rows"):
        list(readers.read(tmp_path / "a.parquet"))


def test_more_lines_than_the_bound_are_refused(rows_of, monkeypatch):
    monkeypatch.setattr(readers, "MAX_ROWS", 10)
    with pytest.raises(DataError, match="more than 10 rows"):
        rows_of("a.jsonl", '{"a": 1}\n' * 11)


def test_an_endless_line_is_a_fault_and_the_next_line_is_read(rows_of, monkeypatch):
    monkeypatch.setattr(readers, "MAX_LINE", 50)
    rows = rows_of("a.jsonl", '{"a": "' + "x" * 130 + '"}\n{"a": 2}\n')
    assert list(faults(rows)) == [1]
    assert rows[1].values == {"a": 2}


def test_a_missing_file_and_an_unknown_kind_are_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        list(readers.read(tmp_path / "a.jsonl"))
    with pytest.raises(DataError, match=r"'\.docx' cannot be read\. Known: \.json"):
        list(readers.read(tmp_path / "a.docx"))
