"""Names, paths, addresses and listings that reach for more than a file: nothing is written outside, nothing fetched."""

import json
import socket
import zipfile
from pathlib import Path

import pytest

from studio.data import hub, imports, intake, registry
from studio.errors import DataError, StudioError

GOOD = json.dumps({"instruction": "Say 1.", "output": "1"}) + "\n"


@pytest.fixture
def world(tmp_path, studio_home, monkeypatch):
    """A folder beside STUDIO_HOME with a file and a secret in it, and no way out."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "rows.jsonl").write_text(GOOD)
    (outside / "secret.jsonl").write_text(GOOD)
    (outside / "data").mkdir()
    monkeypatch.chdir(outside)

    def refuse(*_, **__):
        raise AssertionError("something reached for the network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return outside


def everything(folder: Path) -> dict[str, object]:
    """Each path below a folder with what it holds."""
    return {str(path): path.read_bytes() if path.is_file() else "folder" for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize(
    "name",
    [
        "../escaped", "..", "/tmp/escaped", "a/../../escaped", "..\\escaped", "rows\x00.json", "~root", "CON",
        "a" * 300, "-rf", "rows\n", "．．/escaped", "%2e%2e%2fescaped", "rows.json/", " rows", "file:rows",
    ],
)  # fmt: skip
def test_f22_no_name_writes_outside(world, studio_home, name):
    before = everything(world.parent)
    for register in (
        lambda: registry.add(world / "rows.jsonl", name),
        lambda: registry.rename("identity-en", name),
        lambda: registry.remove(name),
    ):
        with pytest.raises(StudioError):
            register()
    after = {path: text for path, text in everything(world.parent).items() if not path.startswith(str(studio_home))}
    assert after == before


@pytest.mark.parametrize(
    "source",
    [
        "http://127.0.0.1:9/rows.jsonl", "https://example.org/rows.jsonl", "ftp://example.org/rows.jsonl",
        "s3://bucket/rows.jsonl", "hf://datasets/a/b/rows.jsonl", "file:///etc/passwd", "zip://rows.jsonl::pack.zip",
        "simplecache::http://example.org/rows.jsonl", "/dev/zero", "/proc/self/environ", "/etc/passwd", "link.jsonl",
        "pack.zip", "linked", "linked/*.jsonl",
    ],
)  # fmt: skip
def test_f23_no_source_reaches_further_than_a_plain_file(world, studio_home, source):
    (world / "link.jsonl").symlink_to(world / "secret.jsonl")
    (world / "linked").mkdir()
    (world / "linked" / "inner.jsonl").symlink_to(world / "secret.jsonl")
    with zipfile.ZipFile(world / "pack.zip", "w") as pack:
        pack.writestr("../escaped.jsonl", GOOD)
    before = everything(world)
    with pytest.raises(DataError):
        registry.add(source, "mine")
    assert everything(world) == before
    assert all(each.shipped for each in registry.every())
    assert list((studio_home / "uploads").iterdir() if (studio_home / "uploads").is_dir() else []) == []


@pytest.mark.parametrize(
    "entry",
    [
        {"file_name": "../secret.jsonl"},
        {"file_name": "/etc/passwd"},
        {"file_name": "link.jsonl"},
        {"file_name": "http://example.org/rows.jsonl"},
        {"hf_hub_url": "owner/name"},
        {"hf_hub_url": "http://example.org/x"},
        {"ms_hub_url": "owner/name"},
        {"script_url": "evil.py"},
        {"cloud_file_name": "s3://bucket/rows.jsonl"},
    ],
)
def test_f23_a_listing_of_somebody_fetches_nothing_and_stays_in_its_folder(world, studio_home, entry):
    folder = world / "data"
    (folder / "link.jsonl").symlink_to(world / "secret.jsonl")
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    (folder / "dataset_info.json").write_text(json.dumps({"taken": entry}))
    (outcome,) = imports.folder(folder)
    assert outcome.dataset is None and outcome.reason
    assert all(each.shipped for each in registry.every())


@pytest.mark.parametrize(
    "text",
    ["../x", "owner/../x", "http://hub/owner/name", "/etc/passwd", "owner/name/extra", "", "a b/c", "owner/-x\n"],
)
def test_f23_what_is_no_hub_id_is_not_asked_for(world, text):
    with pytest.raises(DataError):
        hub.checked_id(text)


def test_f23_a_file_that_becomes_a_link_after_it_was_looked_at_is_not_followed(world, monkeypatch):
    path = world / "rows.jsonl"
    real = intake.readers.sniff

    def swapped(given):
        found = real(given)
        path.unlink()
        path.symlink_to(world / "secret.jsonl")
        return found

    monkeypatch.setattr(intake.readers, "sniff", swapped)
    with pytest.raises(DataError):
        registry.add(path, "mine")
