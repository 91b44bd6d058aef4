"""The faults of reading data, by their number in the fault matrix: which row, why, or which file and what to do."""

import gzip
import json
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pyarrow
import pytest
from pyarrow import ipc, parquet

from studio.data import readers
from studio.errors import DataError

ZSTD = pyarrow.Codec("zstd")


@pytest.fixture
def rows_of(tmp_path):
    def write(name: str, content: str | bytes):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return list(readers.read(path))

    return write


def faults(rows):
    return {row.number: row.fault for row in rows if row.fault}


# --- rows


def test_f01_a_broken_line_is_a_fault_on_that_row_and_the_others_go_on(rows_of):
    rows = rows_of("a.jsonl", '{"a": 1}\n{"a": oops}\n{"a": 3}\n')
    assert [row.values for row in rows] == [{"a": 1}, None, {"a": 3}]
    assert faults(rows) == {2: "is not valid JSON: Expecting value at character 7."}
    assert rows[1].raw == '{"a": oops}'


@pytest.mark.parametrize("cut", ['{"a": "b', '{"a": "你'.encode()[:-1]])
def test_f02_a_truncated_last_line_is_a_fault_on_that_row(rows_of, cut):
    cut = cut if isinstance(cut, bytes) else cut.encode()
    rows = rows_of("a.jsonl", b'{"a": 1}\n' + cut)
    assert list(faults(rows)) == [2]
    assert rows[0].values == {"a": 1}


def test_f03_rows_that_are_no_objects_are_faults(rows_of):
    rows = rows_of("a.jsonl", '[1, 2]\nnull\n"text"\n3\n{"a": 1}\n')
    assert list(faults(rows)) == [1, 2, 3, 4]
    assert faults(rows)[1] == "must be an object with columns, but is [1, 2]."
    assert faults(rows_of("a.json", '[null, {"a": 1}, [1]]')) == {
        1: "must be an object with columns, but is null.",
        3: "must be an object with columns, but is [1].",
    }


def test_f04_values_of_any_type_are_read_as_they_are(rows_of):
    assert rows_of("a.jsonl", '{"a": 1, "b": [2.5, null], "c": true}')[0].values == {
        "a": 1,
        "b": [2.5, None],
        "c": True,
    }


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_f07_a_duplicate_key_is_a_fault(rows_of, name):
    text = '[{"a": 1, "a": 2}\n,{"b": {"c": 1, "c": 1}}\n,{"a": 3}]'
    rows = rows_of(name, text if name == "a.json" else text.strip("[]").replace("\n,", "\n"))
    assert faults(rows) == {
        1: "has the key 'a' twice. Keep one of them.",
        2: "has the key 'c' twice. Keep one of them.",
    }


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 400, "9" * 5000])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_f08_numbers_that_json_does_not_have_are_faults(rows_of, name, number):
    lines = [f'{{"a": {number}}}', '{"a": 1}']
    rows = rows_of(name, "\n".join(lines) if name == "a.jsonl" else f"[{','.join(lines)}]")
    assert list(faults(rows)) == [1]
    assert "holds" in faults(rows)[1]
    assert rows[1].values == {"a": 1}


@pytest.mark.parametrize(("escape", "told"), [("\\ud800", "half of a surrogate pair"), ("\\u0000", "a NUL character")])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_f09_f10_characters_that_are_none_are_faults(rows_of, name, escape, told):
    lines = [f'{{"a": "x{escape}y"}}', '{"a": "\\ud83d\\ude42"}']
    rows = rows_of(name, "\n".join(lines) if name == "a.jsonl" else f"[{','.join(lines)}]")
    assert list(faults(rows)) == [1]
    assert told in faults(rows)[1]
    assert rows[1].values == {"a": "🙂"}


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt"])
def test_f10_a_nul_in_a_table_or_text_is_a_fault_of_its_row(rows_of, name):
    rows = rows_of(name, "text\none\ntw\0o\nthree\n")
    assert [row.fault for row in rows if row.fault] == ["holds a NUL character. Remove it."]
    assert len(rows) == (4 if name == "a.txt" else 3)


def test_f10_a_nul_in_parquet_is_a_fault_of_its_row(tmp_path):
    parquet.write_table(pyarrow.table({"a": ["x", "a\0b", "y"], "b": [[{"c": "z"}]] * 3}), tmp_path / "a.parquet")
    rows = list(readers.read(tmp_path / "a.parquet"))
    assert faults(rows) == {2: "holds a NUL character. Remove it."}
    assert rows[2].values == {"a": "y", "b": [{"c": "z"}]}


# --- encodings


@pytest.mark.parametrize(
    ("encoding", "text", "guess"),
    [("utf-16-le", "hello", "UTF-16"), ("latin-1", "déjà vu", "Latin-1"), ("gbk", "你好，世界", "GB18030")],
)
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "json", "tsv", "txt", "jsonl.gz"])
def test_f11_another_encoding_is_named_by_a_guess(rows_of, encoding, text, guess, suffix):
    content = (f'{{"a": "{text}"}}\n' * 4 if "json" in suffix else f"a\n{text}\n").encode(encoding)
    with pytest.raises(DataError, match=rf"a\.{suffix} is not UTF-8 text, but looks like {guess}.*Save it as UTF-8"):
        rows_of(f"a.{suffix}", gzip.compress(content) if suffix.endswith("gz") else content)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "txt"])
def test_f11_one_broken_row_of_a_utf8_file_is_a_fault_of_that_row(rows_of, suffix):
    lines = {"jsonl": '{"a": "é你"}', "json": '{"a": "é你"}', "csv": "é你", "txt": "é你"}[suffix]
    every = [lines.encode(), lines.encode().replace("你".encode(), b"\xe4\xbd"), lines.encode()]
    content = b"[" + b",".join(every) + b"]" if suffix == "json" else b"\n".join(every)
    content = b"a\n" + content if suffix == "csv" else content
    rows = rows_of(f"a.{suffix}", content)
    assert faults(rows) == {2: "is not UTF-8 text. Write its characters again, or save the file as UTF-8."}
    assert [bool(row.values) for row in rows] == [True, False, True]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv", "txt"])
def test_f12_byte_order_marks_and_crlf_are_accepted(rows_of, encoding, suffix):
    text = {
        "jsonl": '{"text": "é"}\r\n{"text": "你"}\r\n',
        "json": '[{"text": "é"},\r\n{"text": "你"}]\r\n',
        "csv": "text\r\né\r\n你\r\n",
        "tsv": "text\r\né\r\n你\r\n",
        "txt": "é\r\n你\r\n",
    }[suffix]
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    assert [row.values for row in rows_of(f"a.{suffix}", (mark + text).encode(encoding))] == [
        {"text": "é"},
        {"text": "你"},
    ]


@pytest.mark.parametrize("kind", readers.KINDS[:-2])
@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_f13_an_empty_file_has_no_rows(rows_of, kind, packed):
    assert rows_of(f"a{kind}{packed}", "") == []


def test_f13_white_space_and_an_empty_packed_file_have_no_rows(rows_of):
    for name in ("a.json", "a.jsonl", "a.csv", "a.txt"):
        assert rows_of(name, " \n\n") == []
        assert rows_of(f"{name}.gz", gzip.compress(b"")) == []
        assert rows_of(f"{name}.zst", ZSTD.compress(b"", asbytes=True)) == []


@pytest.mark.parametrize("depth", [3000, 100_000])
@pytest.mark.parametrize(("name", "joint"), [("a.jsonl", "\n"), ("a.json", ",")])
def test_f14_deep_nesting_is_a_fault_on_its_row(rows_of, name, joint, depth):
    deep = '{"a": ' + "[" * depth + "]" * depth + "}"
    text = joint.join(['{"a": 1}', deep, '{"a": 3}'])
    rows = rows_of(name, f"[{text}]" if name.endswith(".json") else text)
    assert faults(rows) == {2: "is nested too deeply to be read."}
    assert rows[2].values == {"a": 3}
    assert len(rows[1].raw) == 2000


# --- bombs

PEAK = """
import sys
from pathlib import Path
from studio.data import readers
from studio.errors import DataError
rows = 0
try:
    for row in readers.read(Path(sys.argv[1])):
        rows += row.fault is None
except DataError as error:
    print(error)
print(rows)
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def read_aside(path: Path) -> tuple[str, int, float]:
    """What a process of its own says while it reads a file, how many rows it gets, and its peak memory in MiB."""
    root = Path(readers.__file__).parents[3]
    run = subprocess.run([sys.executable, "-c", PEAK, path], cwd=root, capture_output=True, text=True, timeout=60)
    said, rows, peak = run.stdout.rsplit("\n", 3)[:3] if run.stdout.count("\n") > 2 else ["", *run.stdout.split()]
    return said, int(rows), int(peak) / 1024


linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")


def texts(count: int, length: int) -> pyarrow.Array:
    """Many times one long text."""
    indices = pyarrow.array([0] * count, pyarrow.int32())
    return pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array(["x" * length]))


def in_lists(values: pyarrow.Array, each: int) -> pyarrow.Array:
    return pyarrow.ListArray.from_arrays(pyarrow.array(range(0, len(values) + 1, each), pyarrow.int32()), values)


@linux
@pytest.mark.parametrize(
    "column",
    [texts(100_000, 1_000_000), in_lists(texts(100_000, 1_000_000), 100_000), in_lists(texts(100_000, 100_000), 100)],
    ids=["100 GB of texts", "100 GB in one row", "10 GB in lists"],
)
def test_f20_a_parquet_bomb_is_refused_within_little_memory(tmp_path, column):
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"a": column})
    parquet.write_table(table, path, compression="zstd", store_schema=False, dictionary_pagesize_limit=2**30)
    assert path.stat().st_size < 500
    assert parquet.read_metadata(path).row_group(0).total_byte_size < 2 * 1024**2
    said, rows, peak = read_aside(path)
    assert re.search(r"a\.parquet unfolds to more than 100 MiB, but has \d+ bytes itself", said)
    assert rows <= 100
    assert peak < 300


def test_f20_a_parquet_file_that_declares_too_much_is_refused_before_a_row_is_read(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"a": pyarrow.nulls(20_000_000, pyarrow.int8())}), path, compression="zstd")
    with pytest.raises(DataError, match=r"a\.parquet declares 20,000,000 rows, but has only"):
        next(readers.read(path))
    long = pyarrow.array(["x" * 1000] * 120_000)
    parquet.write_table(pyarrow.table({"a": long}), path, compression="zstd", use_dictionary=False)
    with pytest.raises(DataError, match=r"declares 115 MiB"):
        next(readers.read(path))


@linux
@pytest.mark.parametrize("write", [ipc.new_file, ipc.new_stream])
def test_f20_an_arrow_bomb_is_refused_before_it_unfolds(tmp_path, write):
    path = tmp_path / "a.arrow"
    table = pyarrow.table({"a": ["x" * 1_000_000] * 130})
    with write(path, table.schema, options=ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    said, rows, peak = read_aside(path)
    assert "a.arrow declares 124 MiB" in said
    assert rows == 0
    assert peak < 200


def test_f20_an_arrow_file_of_nothing_but_rows_is_refused(tmp_path):
    path = tmp_path / "a.arrow"
    table = pyarrow.table({"a": pyarrow.FixedSizeListArray.from_arrays(pyarrow.nulls(2**31 - 2), 2**30 - 1)})
    with ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match=r"a\.arrow unfolds to more than 100 MiB"):
        list(readers.read(path))


@linux
@pytest.mark.parametrize("hidden", [False, True], ids=["declared", "in a member whose size is not the last"])
def test_f20_a_gzip_bomb_is_refused_within_little_memory(tmp_path, hidden):
    path = tmp_path / "a.jsonl.gz"
    packer = zlib.compressobj(wbits=31)
    line = b'{"a": "' + b"x" * 999_990 + b'"}\n'
    bomb = b"".join([*(packer.compress(line) for _ in range(150)), packer.flush()])
    path.write_bytes(bomb + gzip.compress(line) * hidden)
    said, rows, peak = read_aside(path)
    assert ("unfolds to more than 100 MiB" if hidden else "declares 143 MiB") in said
    assert rows <= (105 if hidden else 0)
    assert peak < 150


@linux
def test_f20_a_zstd_bomb_is_refused_before_it_unfolds(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(ZSTD.compress(b'{"a": 1}\n' * 15_000_000, asbytes=True))
    said, rows, _ = read_aside(path)
    assert "a.jsonl.zst declares 129 MiB" in said
    assert rows == 0


@linux
def test_f20_a_zstd_bomb_that_does_not_declare_its_size_is_refused_on_the_way(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    with pyarrow.CompressedOutputStream(str(path), "zstd") as stream:
        for _ in range(150):
            stream.write(b'{"a": "' + b"x" * 999_990 + b'"}\n')
    said, rows, peak = read_aside(path)
    assert "unfolds to more than 100 MiB" in said
    assert 50 < rows < 120
    assert peak < 200


# --- content and name


def test_f21_content_decides_over_the_extension_with_a_warning(tmp_path):
    table = pyarrow.table({"a": ["1", "2"], "b": ["x", "y"]})
    parquet.write_table(table, tmp_path / "p")
    with ipc.new_stream(tmp_path / "s", table.schema) as writer:
        writer.write_table(table)
    lines = b'{"a": "1", "b": "x"}\n{"a": "2", "b": "y"}\n'
    contents = {
        "parquet": (tmp_path / "p").read_bytes(),
        "arrow": (tmp_path / "s").read_bytes(),
        "jsonl": lines,
        "json": json.dumps(table.to_pylist(), indent=1).encode(),
        "csv": b"a,b\n1,x\n2,y\n",
        "tsv": b"a\tb\n1\tx\n2\ty\n",
    }
    told = {"parquet": "a parquet file", "arrow": "an Arrow file", "json": "one JSON value", "tsv": "tabs"}
    told |= {"jsonl": "one JSON object a line", "csv": "a table with separators"}
    for kind, content in contents.items():
        for suffix in contents:
            if {suffix, kind} == {"csv", "tsv"} and suffix == "csv":
                continue  # a .csv may be separated by tabs
            path = tmp_path / f"a.{suffix}"
            path.write_bytes(content)
            sniffed = readers.sniff(path)
            assert sniffed.kind == kind, (suffix, kind)
            assert bool(sniffed.warnings) == (suffix != kind)
            if sniffed.warnings:
                assert f"a.{suffix} is called .{suffix}, but holds {told[kind]}" in sniffed.warnings[0].replace(
                    "a table with tabs", "tabs"
                )
            assert [row.values for row in readers.read(path)] == [{"a": "1", "b": "x"}, {"a": "2", "b": "y"}]


def test_f21_a_compression_that_the_name_does_not_tell_is_noticed(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(b'{"a": 1}'))
    (tmp_path / "b.jsonl.gz").write_bytes(b'{"a": 1}')
    for name, packing, told in (("a.jsonl", "gzip", "packed with gzip"), ("b.jsonl.gz", "", "is plain")):
        sniffed = readers.sniff(tmp_path / name)
        assert (sniffed.kind, sniffed.compression) == ("jsonl", packing)
        assert f"{name} is" in sniffed.warnings[0] and told in sniffed.warnings[0]
        assert [row.values for row in readers.read(tmp_path / name)] == [{"a": 1}]


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (b"PK\x03\x04....xl/workbook.xml", "is an Excel workbook.*save the sheet as .csv"),
        (b"PK\x03\x04....a.csv", "is a zip archive.*Unpack it"),
        (b"PK\x03\x04....archive/data.pkl", "is a pickle.*can run code"),
        (b"\x80\x04\x95\x00", "is a pickle.*can run code"),
        (b"%PDF-1.7", "is a PDF document.*Save its text"),
        (b"\x89PNG\r\n", "is a picture"),
        (b"SQLite format 3\0", "is an SQLite database.*Export the table"),
        (b"<!DOCTYPE html><html>", "is a page in HTML.*Save its text"),
        (b"<?xml version='1.0'?>", "is a page in HTML or XML"),
        (b"\xfd7zXZ\0", "is packed with xz"),
        (b"x" * 257 + b"ustar", "is a tar archive"),
        (gzip.compress(gzip.compress(b"x", mtime=0), mtime=0), "is packed twice, which is not read. Unpack it once"),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "txt", "parquet"])
def test_f21_what_is_no_data_is_refused_by_name_with_what_to_do(rows_of, start, told, suffix):
    with pytest.raises(DataError, match=rf"a\.{suffix} {told}"):
        rows_of(f"a.{suffix}", start)
