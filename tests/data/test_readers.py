"""Files of every kind as rows: what a row is, how a header is told from data, and what goes on after a broken row."""

import datetime
import decimal
import gzip
import json
import tracemalloc
from pathlib import Path

import pyarrow
import pytest
from pyarrow import feather, ipc, parquet

from studio.data import readers
from studio.data.readers import json_document, lines, tables, window
from studio.errors import DataError

SHARED = Path(__file__).parents[3] / "shared" / "data"
shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared sets are not on this machine")


@pytest.fixture
def rows_of(tmp_path):
    def write(name: str, content: str | bytes, **how):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return list(readers.read(path, **how))

    return write


def faults(rows):
    return {row.number: row.fault for row in rows if row.fault}


def values(rows):
    return [row.values for row in rows]


# --- JSON


@pytest.mark.parametrize("broken", ['{"a" 2}', '{"a": "x" "y"}', "{'a': 2}", '{"a": 2} {"a": 3}', "oops"])
@pytest.mark.parametrize("joint", [", ", ",\n", "\n  ,"])
def test_a_broken_element_of_an_array_leaves_the_others_readable(rows_of, broken, joint):
    rows = rows_of("a.json", "[" + joint.join(['{"a": 1}', broken, '{"a": "]}"}']) + "]")
    assert list(faults(rows)) == [2]
    assert rows[1].raw.startswith(broken)
    assert rows[0].values == {"a": 1}
    assert rows[-1].values == {"a": "]}"}


def test_a_string_that_is_left_open_costs_one_row_where_each_row_has_its_line(rows_of):
    rows = rows_of("a.json", '[\n{"a": "1"},\n{"a": "2},\n{"a": "3"}\n]')
    assert list(faults(rows)) == [2]
    assert [row.values for row in rows if row.values] == [{"a": "1"}, {"a": "3"}]


def test_a_brace_that_is_missing_costs_one_row_where_rows_are_indented(rows_of):
    text = json.dumps([{"a": {"b": index}} for index in range(5)], indent=2)
    rows = rows_of("a.json", text.replace('"b": 1\n    }\n', '"b": 1\n    \n'))
    assert list(faults(rows)) == [2]
    assert [row.values["a"]["b"] for row in rows if row.values] == [0, 2, 3, 4]


@pytest.mark.parametrize("cut", ['[{"a": 1}, {"a"', '[{"a": 1}', '[{"a": 1},'])
def test_an_array_that_ends_early_keeps_its_whole_rows_and_has_a_fault(rows_of, cut):
    rows = rows_of("a.json", cut)
    assert rows[0].values == {"a": 1}
    assert rows[-1].fault == "is missing: the file ends inside the array."


def test_text_after_an_array_is_a_fault(rows_of):
    assert list(faults(rows_of("a.json", '[{"a": 1}] [{"a": 2}]'))) == [2]


def test_rows_under_one_key_of_an_object_are_found(rows_of):
    assert values(rows_of("a.json", '{"version": 1,\n "data": [{"a": 1}, {"a": 2}]}')) == [{"a": 1}, {"a": 2}]
    one = '{"messages": [{"role": "user", "content": "x"}]}'
    assert values(rows_of("b.json", one)) == [json.loads(one)]


def test_an_object_over_several_lines_is_one_row_and_so_are_several_after_each_other(rows_of):
    rows = [{"a": 1, "b": {"c": [1, 2]}}, {"a": 2, "b": {}}]
    one, other = (json.dumps(row, indent=2) for row in rows)
    assert values(rows_of("a.json", one)) == rows[:1]
    assert values(rows_of("b.json", f"{one}\n{other}")) == rows
    assert values(rows_of("c.jsonl", f"{one}\n{other}")) == rows


def test_an_object_that_is_too_large_for_memory_is_refused_with_what_to_do(rows_of, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE", 100)
    with pytest.raises(DataError, match=r"a\.json holds more than 100 characters in one JSON object.*\.jsonl"):
        rows_of("a.json", json.dumps({"data": [{"a": index} for index in range(50)]}))


def test_json_lines_whose_first_one_is_longer_than_what_is_looked_at_are_read(rows_of):
    rows = [{"a": "x" * 1_200_000}, {"a": "y"}]
    assert values(rows_of("a.json", "\n".join(map(json.dumps, rows)))) == rows


def test_blank_lines_are_no_rows_but_numbers_stay_those_of_the_lines(rows_of):
    assert [row.number for row in rows_of("a.jsonl", '{"a": 1}\n\n \r\n{"a": 2}\n')] == [1, 4]


def test_an_endless_line_is_a_fault_and_the_next_line_is_read(rows_of, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE", 50)
    rows = rows_of("a.jsonl", '{"a": 1}\n{"a": "' + "x" * 3_000_000 + '"}\n{"a": 2}\n{"a": "' + "y" * 60 + '"}')
    assert faults(rows) == dict.fromkeys((2, 4), "is longer than 50 bytes.")
    assert rows[1].raw.startswith('{"a": "xxx') and len(rows[1].raw) <= lines.RAW
    assert rows[2].values == {"a": 2}


def test_an_endless_element_is_a_fault_and_the_next_one_is_read(rows_of, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE", 2000)
    rows = rows_of("a.json", '[{"a": 1}, {"a": ["' + "x" * 3_000_000 + '"]}, {"a": 2}, "' + "y" * 2001 + '", {"a": 3}]')
    assert faults(rows) == dict.fromkeys((2, 4), "is longer than 2,000 characters.")
    assert [row.values for row in rows if row.values] == [{"a": 1}, {"a": 2}, {"a": 3}]


@pytest.mark.parametrize("size", range(1, 12))
def test_where_the_window_is_cut_does_not_matter(size):
    array = '[{"a": "é\\ud83d\\ude42\\"}"}, {"b": [-1.5e3, true, null]}, 12, "你", {"c": oops}, {"d": {"e": "]"}}]'
    content = array.encode()
    whole = list(json_document.rows(iter([content]), "a"))
    pieces = iter([content[place : place + size] for place in range(0, len(content), size)])
    cut = list(json_document.rows(pieces, "a"))
    assert [(row.values, row.fault) for row in cut] == [(row.values, row.fault) for row in whole]
    assert list(faults(whole)) == [3, 4, 5]


def test_a_long_array_is_read_in_constant_memory(tmp_path):
    def chunks():
        yield b"["
        row = json.dumps({"a": "x" * 500, "b": {"c": ["y"] * 10}}).encode() + b",\n"
        for _ in range(40):
            yield row * 2000
        yield b"{}]"

    tracemalloc.start()
    count = sum(1 for _ in json_document.rows(chunks(), "a"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 80_001
    assert peak < 12 * 1024**2


# --- tables


def test_csv_cells_may_hold_commas_quotes_and_line_breaks(rows_of):
    rows = rows_of("a.csv", 'text,label\n"one, ""two""\nthree",x\n\nfour,y\n')
    assert values(rows) == [{"text": 'one, "two"\nthree', "label": "x"}, {"text": "four", "label": "y"}]


def test_rows_of_another_width_are_faults(rows_of):
    for name, mark in (("a.csv", ","), ("a.tsv", "\t")):
        rows = rows_of(name, "a,b\nx,2\ny\nz,2,3\nw,4\n".replace(",", mark))
        assert faults(rows) == {
            2: "has 1 cells, but there are 2 columns.",
            3: "has 3 cells, but there are 2 columns.",
        }
        assert rows[2].raw


def test_a_quotation_mark_that_is_not_closed_costs_one_row(rows_of):
    rows = rows_of("a.csv", 'a,b\nx,2\n"y,4\nz,6\n"w, w",8\nv,1\n')
    assert list(faults(rows)) == [2]
    assert rows[1].raw.startswith('"y,4')
    assert [row.values["a"] for row in rows if row.values] == ["x", "z", "w, w", "v"]


def test_quotation_marks_that_are_never_closed_do_not_take_forever(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + 'a","\n' * 20_000)
    assert sum(1 for _ in readers.read(path)) > 0


def test_a_record_that_never_ends_is_a_fault(rows_of, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE", 1000)
    rows = rows_of("a.csv", 'a,b\nx,y\n"' + "z\n" * 2000 + '",1\nv,w\n')
    assert "longer than 1,000 characters" in faults(rows)[2]
    assert rows[-1].values == {"a": "v", "b": "w"}


def test_a_cell_may_be_longer_than_the_default_of_the_csv_module(rows_of):
    assert len(rows_of("a.csv", "a\n" + "x" * 200_000)[0].values["a"]) == 200_000


def test_quotation_marks_in_tab_separated_text_are_plain(rows_of):
    rows = rows_of("a.tsv", 'label\ttext\nham\t"well\nspam\tsaid"\n')
    assert [row.values["text"] for row in rows] == ['"well', 'said"']


@pytest.mark.parametrize("mark", [";", "\t", ","])
def test_what_separates_the_header_separates_the_rows(rows_of, mark):
    assert values(rows_of("a.csv", f'a{mark}b\n"1{mark}5"{mark}2\n')) == [{"a": f"1{mark}5", "b": "2"}]


def test_a_table_of_an_old_macintosh_is_read(rows_of):
    assert values(rows_of("a.csv", "a,b\rx,y\rz,w\r")) == [{"a": "x", "b": "y"}, {"a": "z", "b": "w"}]


def test_a_column_name_twice_is_refused(rows_of):
    with pytest.raises(DataError, match=r"a\.csv: the column 'a' is there twice"):
        rows_of("a.csv", "a,b,a\n1,2,3\n")


@pytest.mark.parametrize(
    "first",
    [
        ["spam", "you won"],
        ["1", "text"],
        ["-3,5", "text"],
        ["x" * 81, "y"],
        ["Hello there.", "y"],
        ["真的吗？", "y"],
        ["a", " "],
    ],
)
def test_a_first_line_that_is_data_is_not_lost(rows_of, first):
    rows = rows_of("a.tsv", "\n".join("\t".join(cells) for cells in (first, ["ham", "hi"], ["spam", "buy"])))
    assert values(rows)[0] == {"column 1": first[0], "column 2": first[1]}
    assert len(rows) == 3


@pytest.mark.parametrize("first", [["label", "text"], ["", "text"], ["text", "the label"], ["input 1", "输出"]])
def test_a_first_line_that_names_the_columns_is_no_row(rows_of, first):
    rows = rows_of("a.tsv", "\n".join("\t".join(cells) for cells in (first, ["ham", "hi"], ["spam", "buy"])))
    assert values(rows)[0] == {first[0] or "column 1": "ham", first[1]: "hi"}
    assert len(rows) == 2


def test_a_cell_that_comes_again_only_late_does_not_make_the_header_data():
    late = [["a", "b"], *([["x", "y"]] * tables.SAMPLE), ["a", "z"]]
    assert tables.has_header(late)
    assert not tables.has_header(late[1:])


# --- plain text


def test_text_is_read_by_line_by_paragraph_or_whole(rows_of):
    text = "\n one\r\ntwo\n\n \nthree\n"
    assert [(row.number, row.values) for row in rows_of("a.txt", text)] == [
        (2, {"text": " one"}),
        (3, {"text": "two"}),
        (6, {"text": "three"}),
    ]
    paragraphs = rows_of("a.md", text, unit="paragraph")
    assert [(row.number, row.values) for row in paragraphs] == [(2, {"text": " one\ntwo"}), (6, {"text": "three"})]
    assert values(rows_of("a.text", text, unit="file")) == [{"text": " one\ntwo\n\n \nthree"}]


@pytest.mark.parametrize("unit", ["line", "paragraph", "file"])
def test_text_that_is_too_long_is_a_fault_that_says_what_to_do(rows_of, monkeypatch, unit):
    monkeypatch.setattr(lines, "MAX_LINE", 30)
    text = "x" * 40 + "\n\nshort" if unit == "line" else "ten letters\n" * 4 + "\nshort"
    rows = rows_of("a.txt", text, unit=unit)
    assert "is longer than 30 bytes. Split it, or read the file by lines" in faults(rows)[1]
    assert [row.values for row in rows if row.values] == ([] if unit == "file" else [{"text": "short"}])


# --- parquet and Arrow


def test_nested_rows_come_back_from_parquet_and_arrow(tmp_path):
    rows = [{"messages": [{"role": "user", "content": f"{index}"}], "n": index, "t": None} for index in range(2500)]
    table = pyarrow.Table.from_pylist(rows)
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=700)
    feather.write_feather(table, tmp_path / "a.feather")
    with ipc.new_stream(tmp_path / "a.arrow", table.schema) as stream:
        stream.write_table(table)
    for name in ("a.parquet", "a.feather", "a.arrow"):
        assert values(readers.read(tmp_path / name)) == rows
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        assert values(readers.read(tmp_path / f"{name}.gz")) == rows


COLUMNS = [
    (pyarrow.array([datetime.date(2024, 2, 29)]), "2024-02-29"),
    (pyarrow.array([datetime.datetime(2024, 2, 29, 12)], pyarrow.timestamp("ns")), "2024-02-29T12:00:00"),
    (pyarrow.array([0], pyarrow.timestamp("s", "Nowhere/Land")), "1970-01-01T00:00:00+00:00"),
    (pyarrow.array([datetime.time(12, 30)]), "12:30:00"),
    (pyarrow.array([90_000_000_001], pyarrow.duration("ns")), "0:01:30"),
    (pyarrow.array([decimal.Decimal("1.50")]), "1.50"),
    (pyarrow.array([b"bytes"]), None),
    (pyarrow.array([float("nan")]), None),
    (pyarrow.array([[1.5, float("nan")]]), [1.5, None]),
    (pyarrow.array([1.5], pyarrow.float16()), 1.5),
    (pyarrow.array([[(1, "x")]], pyarrow.map_(pyarrow.int32(), pyarrow.string())), {"1": "x"}),
    (pyarrow.array([{"a": {"b": datetime.date(2024, 1, 1)}}]), {"a": {"b": "2024-01-01"}}),
    (pyarrow.array(["x"]).dictionary_encode(), "x"),
    (pyarrow.array([["x"]], pyarrow.list_(pyarrow.dictionary(pyarrow.int8(), pyarrow.string()))), ["x"]),
    (pyarrow.array(["x" * 20], pyarrow.string_view()), "x" * 20),
    (pyarrow.array(["x"], pyarrow.large_string()), "x"),
    (pyarrow.array([[1, 2]], pyarrow.list_(pyarrow.int8(), 2)), [1, 2]),
    (pyarrow.array([2**63], pyarrow.uint64()), 2**63),
    (pyarrow.array([True]), True),
    (pyarrow.nulls(1), None),
]


@pytest.mark.parametrize(("column", "value"), COLUMNS, ids=[str(column.type) for column, _ in COLUMNS])
def test_values_become_what_json_has(tmp_path, column, value):
    feather.write_feather(pyarrow.table({"a": column}), tmp_path / "a.arrow", compression="uncompressed")
    assert values(readers.read(tmp_path / "a.arrow")) == [{"a": value}]
    json.dumps(value)


def test_a_value_that_python_does_not_have_is_a_fault_of_its_row(tmp_path):
    moments = pyarrow.array([0, 2**62, 1]).cast(pyarrow.timestamp("us"))
    feather.write_feather(pyarrow.table({"a": moments}), tmp_path / "a.arrow")
    rows = list(readers.read(tmp_path / "a.arrow"))
    assert list(faults(rows)) == [2]
    assert "a value in the column 'a' that cannot be read" in faults(rows)[2]
    assert rows[2].values == {"a": "1970-01-01T00:00:00.000001"}


def test_an_infinite_number_is_a_fault_and_a_missing_one_is_null(tmp_path):
    table = pyarrow.table({"a": [1.0, float("inf"), float("nan")]})
    parquet.write_table(table, tmp_path / "a.parquet")
    rows = list(readers.read(tmp_path / "a.parquet"))
    assert faults(rows) == {2: "holds the number inf, which JSON does not have. Use null or a number."}
    assert rows[2].values == {"a": None}


def test_a_column_type_that_may_repeat_itself_is_refused(tmp_path):
    table = pyarrow.table({"a": pyarrow.array([[1]], pyarrow.list_view(pyarrow.int32()))})
    with ipc.new_file(tmp_path / "a.arrow", table.schema) as file:
        file.write_table(table)
    with pytest.raises(DataError, match=r"a\.arrow has a column of type list_view<item: int32>, which is not read"):
        list(readers.read(tmp_path / "a.arrow"))


@pytest.mark.parametrize(
    ("name", "start"), [("a.parquet", b"PAR1"), ("a.arrow", b"ARROW1\0\0"), ("a.arrow", b"\xff\xff\xff\xff\x10\0\0\0")]
)
def test_a_file_that_only_starts_as_one_is_refused(rows_of, name, start):
    with pytest.raises(DataError, match=rf"{name} is not a readable (parquet|Arrow) file.*convert it to \.jsonl"):
        rows_of(name, start + b" oh no " * 5)


# --- packed files, progress, refusals


@pytest.mark.parametrize("cut", [11, 200, -9, -1])
@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_damaged_compressed_file_is_refused_by_name(tmp_path, suffix, cut):
    content = "".join(json.dumps({"a": str(index) * 3}) + "\n" for index in range(2000)).encode()
    packed = gzip.compress(content) if suffix == "gz" else pyarrow.compress(content, "zstd", asbytes=True)
    path = tmp_path / f"a.jsonl.{suffix}"
    path.write_bytes(packed)
    assert len(list(readers.read(path))) == 2000
    path.write_bytes(packed[:cut])
    with pytest.raises(DataError, match=rf"a\.jsonl\.{suffix} "):
        list(readers.read(path))


def test_several_gzip_members_are_one_file(rows_of):
    content = gzip.compress(b'{"a": 1}\n{"a"') + gzip.compress(b": 2}\n") + b"\0" * 20
    assert values(rows_of("a.jsonl.gz", content)) == [{"a": 1}, {"a": 2}]


def test_progress_is_told_in_bytes_of_the_file_on_disk(tmp_path):
    rows = [{"a": f"{index:09}" * 20} for index in range(20_000)]
    table = pyarrow.Table.from_pylist(rows)
    content = "\n".join(map(json.dumps, rows)).encode()
    parquet.write_table(table, tmp_path / "a.parquet")
    feather.write_feather(table, tmp_path / "a.arrow", chunksize=1000)
    (tmp_path / "a.jsonl").write_bytes(content)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(content, 1))
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.csv").write_text("a\n" + "\n".join(row["a"] for row in rows))
    for path in sorted(tmp_path.iterdir()):
        told = []
        assert sum(1 for _ in readers.read(path, tell=told.append)) == 20_000
        assert told == sorted(told) and len(told) > 3, path
        assert told[-1] == path.stat().st_size, path


def test_what_tell_raises_ends_the_reading(rows_of):
    class Stopped(Exception):
        pass

    def stop(done: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        rows_of("a.jsonl", '{"a": 1}', tell=stop)


def test_a_missing_file_and_an_unknown_kind_are_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        list(readers.read(tmp_path / "a.jsonl"))
    with pytest.raises(DataError, match=r"'\.doc' cannot be read\. Known: \.json"):
        list(readers.read(tmp_path / "a.doc"))
    with pytest.raises(DataError, match="Unknown kind of file 'jsnl'. Did you mean 'jsonl'?"):
        list(readers.read(tmp_path / "a.jsonl", kind="jsnl"))


def test_a_kind_that_is_chosen_wins_over_the_content(rows_of):
    assert values(rows_of("a.jsonl", '{"a": 1}\n', kind="txt")) == [{"text": '{"a": 1}'}]


def test_a_link_is_not_read(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}")
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "a.jsonl")
    for use in (readers.read, readers.sha256, readers.sniff):
        with pytest.raises(DataError, match=r"b\.jsonl is a link"):
            result = use(tmp_path / "b.jsonl")
            list(result)


def test_the_window_lets_go_of_what_lies_behind():
    view = window.Window(iter([b" " * 5000, b"1"]))
    assert view.peek() == "1"
    assert len(view.text) < 5000


@shared
@pytest.mark.parametrize(
    ("name", "rows", "kind"),
    [
        ("classification/sms_spam.tsv", 5574, "tsv"),
        ("classification/banking77_train.csv", 10003, "csv"),
        ("classification/kdconv_domain_zh.csv", 4000, "csv"),
        ("nlg/e2e_devset.csv", 4672, "csv"),
        ("instruct/self_instruct_seed_tasks.jsonl", 175, "jsonl"),
        ("instruct/rasbt_instruction.json", 1100, "json"),
        ("chat/kdconv_film_test.json", 150, "json"),
        ("eval/gaokao_history_mcq.json", 287, "json"),
        ("math/gsm8k_train.jsonl", 7473, "jsonl"),
        ("rawtext/songci_0.json", 1000, "json"),
    ],
)
def test_real_files_are_read_whole(name, rows, kind):
    sniffed = readers.sniff(SHARED / name)
    assert (sniffed.kind, sniffed.warnings) == (kind, ())
    read = list(readers.read(SHARED / name))
    assert len(read) == rows
    assert faults(read) == {}
