"""Whatever bytes a file holds, reading it gives rows or a DataError; and what was written comes back."""

import csv
import gzip
import io
import json
import tempfile
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import feather, ipc, parquet

from studio.data import readers
from studio.data.example import Row
from studio.data.readers import json_document, json_lines, tables
from studio.errors import DataError

SUFFIXES = ("json", "jsonl", "csv", "tsv", "txt", "parquet", "arrow")
PACKED = [f"{suffix}{packed}" for suffix in SUFFIXES for packed in ("", ".gz", ".zst")]

PIECES = """{ } [ ] "a" : , " \\ 1 null ; \\ud800 NaN 1e999 {"a":1} é""".encode().split()
JSONISH = st.lists(
    st.sampled_from([*PIECES, b" ", b"\n", b"\r\n", b"\r", b"\t", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe"]),
    max_size=40,
).map(b"".join)
BYTES = st.binary(max_size=300) | JSONISH


def read(name: str, content: bytes, **how) -> list[Row] | None:
    """The rows of a file with this content; None where it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        try:
            rows = list(readers.read(path, **how))
        except DataError as error:
            assert name in str(error)
            return None
    for row in rows:
        assert type(row) is Row
        assert (row.values is None) == bool(row.fault)
        assert len(row.raw) <= 2000
        # rows go into a store, so each must be text that can be written
        (json.dumps(row.values, ensure_ascii=False, allow_nan=False) + row.raw + (row.fault or "")).encode()
    numbers = [row.number for row in rows]
    assert numbers == sorted(set(numbers))
    return rows


def packed(name: str, content: bytes) -> bytes:
    if name.endswith(".gz"):
        return gzip.compress(content)
    return pyarrow.compress(content, "zstd", asbytes=True) if name.endswith(".zst") else content


@settings(max_examples=400)
@given(st.sampled_from(PACKED), BYTES, st.booleans(), st.sampled_from(["line", "paragraph", "file"]))
def test_arbitrary_bytes_are_rows_or_a_data_error(name, content, whole, unit):
    read(f"a.{name}", packed(name, content) if whole else content, unit=unit)


@settings(max_examples=300)
@given(st.sampled_from(SUFFIXES), BYTES)
def test_a_kind_that_is_chosen_wrongly_gives_rows_or_a_data_error(kind, content):
    read("a.jsonl", content, kind=kind)


TABLE = pyarrow.Table.from_pylist(
    [
        {"a": f"text {index % 7}", "n": index, "m": [{"role": "user", "content": "x" * (index % 9)}]}
        for index in range(200)
    ]
)


def written(write) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, "a"))
        return Path(folder, "a").read_bytes()


def stream(path: Path) -> None:
    with ipc.new_stream(path, TABLE.schema) as writer:
        writer.write_table(TABLE.unify_dictionaries(), 50)


VALID = {
    "a.parquet": written(lambda path: parquet.write_table(TABLE, path, row_group_size=90)),
    "b.parquet": written(lambda path: parquet.write_table(TABLE, path, compression="none", use_dictionary=False)),
    "a.arrow": written(lambda path: feather.write_feather(TABLE, path, chunksize=60, compression="zstd")),
    "b.arrow": written(lambda path: feather.write_feather(TABLE, path, compression="uncompressed")),
    "c.arrow": written(stream),
}
VALID["a.jsonl.gz"] = gzip.compress(b'{"a": "b"}\n' * 100)
VALID["a.jsonl.zst"] = pyarrow.compress(b'{"a": "b"}\n' * 100, "zstd", asbytes=True)
VALID["a.parquet.gz"] = gzip.compress(VALID["a.parquet"])


@pytest.mark.parametrize("name", VALID)
def test_a_sound_file_is_read(name):
    assert len(read(name, VALID[name])) == (200 if "jsonl" not in name else 100)


@settings(max_examples=600)
@given(st.sampled_from(sorted(VALID)), st.data())
def test_a_file_with_some_bytes_changed_is_rows_or_a_data_error(name, data):
    content = bytearray(VALID[name])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    read(name, bytes(content))


@settings(max_examples=150)
@given(st.sampled_from(sorted(VALID)), st.data())
def test_a_file_that_is_cut_is_rows_or_a_data_error(name, data):
    read(name, VALID[name][: data.draw(st.integers(0, len(VALID[name]) - 1))])


TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=20)
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    TEXT | NUMBERS | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ROWS = st.lists(st.dictionaries(TEXT, JSON, min_size=1, max_size=4), min_size=1, max_size=5)


@settings(max_examples=200)
@given(ROWS, st.booleans(), st.sampled_from([None, 0, 2, "\t"]), st.integers(1, 50))
def test_rows_written_as_json_come_back(rows, ascii_only, indent, size):
    dump = lambda value, indent=None: json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()  # noqa: E731
    array, lines = dump(rows, indent), b"\n".join(dump(row) for row in rows)
    assert [row.values for row in read("a.json", array)] == rows
    assert [row.values for row in read("a.jsonl", lines)] == rows
    pieces = [array[place : place + size] for place in range(0, len(array), size)]
    assert [row.values for row in json_document.rows(iter(pieces), "a")] == rows
    pieces = [lines[place : place + size] for place in range(0, len(lines), size)]
    assert [row.values for row in json_lines.rows(iter(pieces))] == rows


CELL = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=12) | st.sampled_from(
    ['"', "a,b", "x\ny", '""']
)


@settings(max_examples=200)
@given(st.lists(st.tuples(CELL, CELL, CELL), max_size=8), st.sampled_from(",;\t"), st.sampled_from(["\n", "\r\n"]))
def test_rows_written_as_csv_come_back(records, mark, end):
    file = io.StringIO()
    csv.writer(file, delimiter=mark, lineterminator=end).writerows([("the name", "of the", "columns"), *records])
    rows = list(tables.rows(iter([file.getvalue().encode()]), "a", tabs=False))
    assert [tuple(row.values.values()) for row in rows] == records


COLUMNS = st.lists(
    st.fixed_dictionaries(
        {"t": TEXT | st.none(), "n": NUMBERS.filter(lambda n: isinstance(n, int)), "l": st.lists(TEXT)}
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=100)
@given(COLUMNS, st.sampled_from(["parquet", "arrow"]), st.booleans())
def test_rows_written_with_pyarrow_come_back(rows, suffix, dictionary):
    types = {"t": pyarrow.string(), "n": pyarrow.int64(), "l": pyarrow.list_(pyarrow.string())}
    table = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(types))
    if suffix == "parquet":
        content = written(lambda path: parquet.write_table(table, path, use_dictionary=dictionary))
    else:
        content = written(lambda path: feather.write_feather(table, path))
    assert [row.values for row in read(f"a.{suffix}", content)] == rows


def test_no_changed_byte_of_a_parquet_footer_ends_the_process():
    content = VALID["a.parquet"]
    length = int.from_bytes(content[-8:-4], "little")
    for place in range(len(content) - 8 - length, len(content) - 8):
        changed = bytearray(content)
        changed[place] ^= 0x06
        read("a.parquet", bytes(changed))
