"""What the user points at: files, folders and patterns are found, and what is no plain local file is refused."""

import os
import socket
from pathlib import Path

import pytest

from studio.data import sources
from studio.errors import DataError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch):
    place = tmp_path / "data"
    (place / "deeper").mkdir(parents=True)
    for name in ("b.jsonl", "a.csv", "deeper/c.parquet", "deeper/d.jsonl.gz", ".hidden.jsonl", "picture.png"):
        (place / name).write_text("x")
    monkeypatch.chdir(tmp_path)
    return place


def names(found):
    return [path.name for path in found]


def test_one_file_and_several_are_found_each_once(folder):
    assert sources.find(folder / "a.csv") == [folder / "a.csv"]
    assert names(sources.find([str(folder / "b.jsonl"), folder / "a.csv", folder / "b.jsonl"])) == ["b.jsonl", "a.csv"]


def test_a_folder_stands_for_the_files_of_known_kinds_in_it(folder):
    assert names(sources.find(folder)) == ["a.csv", "b.jsonl", "c.parquet", "d.jsonl.gz"]


def test_prose_and_descriptions_beside_rows_are_left_out_of_a_folder(folder):
    for name in ("README.md", "LICENSE.txt", "dataset_info.json"):
        (folder / name).write_text("x")
    assert names(sources.find(folder)) == ["a.csv", "b.jsonl", "c.parquet", "d.jsonl.gz"]
    (folder.parent / "notes").mkdir()
    (folder.parent / "notes" / "one.md").write_text("x")
    assert names(sources.find(folder.parent / "notes")) == ["one.md"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("data/*.jsonl", ["b.jsonl"]),
        ("data/[ab].*", ["a.csv", "b.jsonl"]),
        ("data/**/*.gz", ["d.jsonl.gz"]),
        ("data/*", ["a.csv", "b.jsonl"]),
    ],
)
def test_a_pattern_finds_files_relative_or_absolute(folder, pattern, found):
    assert names(sources.find(pattern)) == found
    assert names(sources.find(str(folder.parent / pattern))) == found


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(folder):
    (folder / "[a].jsonl").write_text("x")
    assert names(sources.find(folder / "[a].jsonl")) == ["[a].jsonl"]


def test_a_pattern_that_fits_nothing_and_an_empty_folder_are_told(folder):
    with pytest.raises(DataError, match=r"No file fits the pattern data/\*\.tsv"):
        sources.find("data/*.tsv")
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="holds no file that can be read"):
        sources.find(folder / "empty")


def test_a_missing_file_is_told_with_the_nearest_name(folder):
    with pytest.raises(DataError, match=r"does not exist\. Did you mean 'b\.jsonl'\?"):
        sources.find(folder / "b.json")
    with pytest.raises(DataError, match=r"Neither does the folder"):
        sources.find(folder / "no" / "b.json")


@pytest.mark.parametrize(
    "address",
    [
        "http://example.org/a.jsonl",
        "zip://a.jsonl::http://example.org/a.zip",
        "file:///etc/passwd",
        "s3://bucket/a.jsonl",
        "hf://datasets/a/b.jsonl",
        "gzip::a.jsonl",
        Path("https://example.org/a.jsonl"),
    ],
)
def test_f23_an_address_is_refused(address):
    with pytest.raises(DataError, match="is an address. Nothing is fetched"):
        sources.find(address)


def test_f23_a_link_is_refused_and_so_is_one_that_leads_out_of_a_folder(folder):
    (folder.parent / "secret.jsonl").write_text("x")
    link = folder / "link.jsonl"
    link.symlink_to(folder.parent / "secret.jsonl")
    for source in (link, folder, "data/*.jsonl"):
        with pytest.raises(DataError, match=r"link\.jsonl is a link"):
            sources.find(source)
    with pytest.raises(DataError, match="is a link"):
        sources.open_checked(link)


def test_links_to_folders_and_within_a_folder_are_not_followed(folder):
    (folder / "again.jsonl").symlink_to(folder / "b.jsonl")
    (folder / "up").symlink_to(folder.parent, target_is_directory=True)
    assert names(sources.find(folder)) == ["a.csv", "b.jsonl", "c.parquet", "d.jsonl.gz"]


def test_a_file_behind_a_linked_folder_is_no_match_of_a_pattern(folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "e.jsonl").write_text("x")
    (folder / "way").symlink_to(outside, target_is_directory=True)
    with pytest.raises(DataError, match="is a link"):
        sources.find("data/**/*.jsonl")


def test_a_pipe_a_device_and_a_socket_are_refused_without_waiting(folder):
    os.mkfifo(folder / "pipe.jsonl")
    with pytest.raises(DataError, match="is not a plain file"):
        sources.find(folder / "pipe.jsonl")
    with pytest.raises(DataError, match="is not a plain file"):
        sources.open_checked(folder / "pipe.jsonl")
    with pytest.raises(DataError, match="is not a plain file"):
        sources.open_checked(Path("/dev/null"))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("data/socket.jsonl")
        with pytest.raises(DataError, match="is not a plain file"):
            sources.find("data/socket.jsonl")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a.docx", "Save its text as .txt"),
        ("a.xlsx", "save the sheet as .csv"),
        ("a.pkl", "can run code"),
        ("a.gz", r"Call it \.jsonl\.gz"),
        ("a.xyz", r"Known: \.json, \.jsonl"),
        ("a", "files of kind ''"),
    ],
)
def test_a_file_of_unknown_kind_is_refused_with_what_to_do(tmp_path, name, told):
    (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=told):
        sources.find(tmp_path / name)


@pytest.mark.parametrize("name", ["", "  ", "a\0b.jsonl"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(DataError, match="is no name of a file"):
        sources.find(name)


def test_a_name_that_is_too_long_is_told(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        sources.find(tmp_path / ("x" * 300 + ".jsonl"))


def test_nothing_given_is_told():
    with pytest.raises(DataError, match="No file was given"):
        sources.find([])


def test_only_the_wanted_kinds_are_taken(folder):
    assert names(sources.find(folder, kinds=(".jsonl",))) == ["b.jsonl", "d.jsonl.gz"]


def test_too_many_files_are_refused(folder, monkeypatch):
    monkeypatch.setattr(sources, "MAX_FILES", 3)
    with pytest.raises(DataError, match="holds 4 files; at most 3"):
        sources.find(folder)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.b.JSONL", ("jsonl", "")), ("a.csv.gz", ("csv", "gzip")), ("a.zst", ("", "zstd")), ("a.md", ("txt", ""))],
)
def test_a_name_promises_a_kind_and_a_compression(name, kind):
    assert sources.named(Path(name)) == kind
