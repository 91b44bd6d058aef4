import json

import pytest

from studio.data import faults, intake
from studio.errors import DataError

GOOD = '{"prompt": "a", "completion": "b"}'


@pytest.fixture
def files(studio_home, tmp_path):
    """Two files with blank lines, in which row 3 and row 400 are faulty."""
    for name in ("a.jsonl", "b.jsonl"):
        lines = [GOOD, "", f'{{"prompt": "{name}"}}', *[GOOD] * 396, f'{{"broken in {name}', GOOD]
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    return intake.take_in([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])


def test_the_row_of_each_fault_is_found_in_its_own_file(files):
    found = files.inspection.faults
    assert [(each.file, each.row) for each in found] == [
        ("a.jsonl", 3), ("a.jsonl", 400), ("b.jsonl", 3), ("b.jsonl", 400),
    ]  # fmt: skip
    texts = [faults.text(row) for row in faults.rows(files.path, files.sources, found)]
    assert texts == ['{"prompt": "a.jsonl"}', '{"broken in a.jsonl', '{"prompt": "b.jsonl"}', '{"broken in b.jsonl']


def test_rows_without_files_are_found_by_their_number(files):
    taken = intake.taken(iter([row for row in files.inspection.preview if row.file == "a.jsonl"]), title="t")
    (row,) = faults.rows(taken.path, (), [next(each for each in taken.inspection.faults if each.row == 3)])
    assert row.values == {"prompt": "a.jsonl"}


def test_every_faulty_row_is_written_with_its_place_and_text(files, tmp_path):
    target, told = tmp_path / "faults.jsonl", []
    watch = intake.Watch(tell=told.append)
    how = files.inspection.detection
    assert faults.write(files.path, how, target, total=files.inspection.rows, watch=watch) == 4
    lines = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [(line["file"], line["row"]) for line in lines][::2] == [("a.jsonl", 3), ("b.jsonl", 3)]
    assert lines[0]["field"] == "completion" and lines[0]["text"] == '{"prompt": "a.jsonl"}' and told


def test_a_target_that_cannot_be_written_is_named(files, tmp_path):
    with pytest.raises(DataError, match="cannot be written"):
        faults.write(files.path, files.inspection.detection, tmp_path / "no" / "x", total=1)
