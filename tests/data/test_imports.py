"""Data folders and datasets of the hub: what becomes a dataset, and what is told instead."""

import json
from hashlib import sha1
from pathlib import Path

import pytest

from studio.data import hub, imports, registry
from studio.data.example import Row
from studio.data.intake import Stopped, Watch
from studio.errors import DataError

COMMIT = "c0ffee" + "0" * 34
ROWS = [{"instruction": f"{n}?", "input": "", "output": str(n), "system": "Count."} for n in range(5)]


def folder_of(path: Path, entries: dict, **files: object) -> Path:
    path.mkdir(exist_ok=True)
    for name, rows in files.items():
        (path / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    (path / "dataset_info.json").write_text(json.dumps(entries), encoding="utf-8")
    return path


@pytest.fixture
def the_hub(monkeypatch):
    """A hub that has the rows of owner/name, and writes down what it was asked for."""
    asked = []

    def rows(repo, *, subset=None, split="train", revision=None):
        asked.append((repo, subset, split, revision))
        return (Row(number, {"prompt": f"{number}?", "completion": str(number)}) for number in range(1, 2501))

    monkeypatch.setattr(hub, "pinned", lambda repo, revision=None: COMMIT)
    monkeypatch.setattr(hub, "rows", rows)
    return asked


def test_each_usable_entry_becomes_a_dataset_in_the_order_of_the_file(studio_home, tmp_path):
    entries = {"second": {"file_name": "b.json"}, "first": {"file_name": "a.json", "num_samples": 2}}
    found = imports.folder(folder_of(tmp_path / "data", entries, a=ROWS, b=ROWS))
    assert [(each.name, each.dataset.rows, each.reason) for each in found] == [("second", 5, ""), ("first", 2, "")]
    assert registry.get("first").origin["entry"] == "first"


def test_columns_that_the_description_does_not_name_are_not_used(studio_home, tmp_path):
    entries = {"plain": {"file_name": "a.json"}, "told": {"file_name": "a.json", "columns": {"system": "system"}}}
    plain, told = imports.folder(folder_of(tmp_path / "data", entries, a=ROWS))
    assert plain.dataset.columns == {"prompt": "instruction", "query": "input", "response": "output"}
    assert told.dataset.columns["system"] == "system"


def test_an_entry_that_cannot_be_used_does_not_stand_in_the_way_of_the_others(studio_home, tmp_path):
    entries = {
        "gone": {"file_name": "gone.json"},
        "two words": {"file_name": "a.json"},
        "altered": {"file_name": "a.json", "file_sha1": "0" * 40},
        "mute": {"file_name": "mute.json"},
        "identity-en": {"file_name": "a.json"},
        "good": {"file_name": "a.json"},
    }
    found = imports.folder(folder_of(tmp_path / "data", entries, a=ROWS, mute=[{"instruction": "x", "output": ""}]))
    reasons = {each.name: each.reason for each in found if each.dataset is None}
    assert [each.name for each in found if each.dataset] == ["good"]
    assert "does not exist" in reasons["gone"]
    assert "Use 1 to 64 letters" in reasons["two words"]
    assert "SHA-1" in reasons["altered"]
    assert "has no row that can be learned from" in reasons["mute"]
    assert "There is a dataset 'identity-en' already" in reasons["identity-en"]


def test_a_file_with_the_stated_sha1_is_taken(studio_home, tmp_path):
    digest = sha1(json.dumps(ROWS).encode(), usedforsecurity=False).hexdigest()
    folder = folder_of(tmp_path / "data", {"a": {"file_name": "a.json", "file_sha1": digest}}, a=ROWS)
    assert imports.folder(folder)[0].dataset.rows == 5


def test_an_entry_on_the_hub_is_told_and_not_fetched(studio_home, tmp_path, the_hub):
    (found,) = imports.folder(folder_of(tmp_path / "data", {"far": {"hf_hub_url": "owner/name"}}))
    assert "studio data add owner/name --hub --name far" in found.reason
    assert the_hub == []


def test_only_the_named_entries_are_added_under_their_prefix(studio_home, tmp_path):
    folder = folder_of(tmp_path / "data", {"a": {"file_name": "a.json"}, "b": {"file_name": "a.json"}}, a=ROWS)
    assert [each.dataset.name for each in imports.folder(folder, ["b"], "lf-")] == ["lf-b"]
    with pytest.raises(DataError, match="Unknown entry 'c'"):
        imports.folder(folder, ["c"])


def test_a_stop_registers_none_of_the_entries_and_leaves_no_rows(studio_home, tmp_path):
    folder = folder_of(tmp_path / "data", {"a": {"file_name": "a.json"}, "b": {"file_name": "b.json"}}, a=ROWS, b=ROWS)
    seen = []
    with pytest.raises(Stopped):
        imports.folder(folder, watch=Watch(tell=seen.append, stopping=lambda: len(seen) > 2))
    assert len(seen) > 2
    assert all(each.shipped for each in registry.every())
    assert not list((studio_home / "uploads").iterdir())


def test_a_folder_is_described_by_its_own_description_only(tmp_path):
    folder = folder_of(tmp_path / "data", {})
    assert imports.described(folder)
    assert imports.described(folder / "dataset_info.json")
    assert not imports.described(tmp_path)


def test_a_dataset_of_the_hub_is_pinned_to_the_commit_that_was_read(studio_home, the_hub):
    dataset = registry.register(imports.from_hub("owner/name", subset="main", max_rows=10), "mine")
    assert the_hub == [("owner/name", "main", "train", COMMIT)]
    assert (dataset.rows, dataset.valid, dataset.title) == (10, 10, "owner/name")
    assert dataset.origin == {"hub": "owner/name", "subset": "main", "split": "train", "revision": COMMIT}


def test_reading_from_the_hub_stops_when_asked_and_keeps_nothing(studio_home, the_hub):
    seen = []
    with pytest.raises(Stopped):
        imports.from_hub("owner/name", watch=Watch(tell=seen.append, stopping=lambda: len(seen) > 1))
    assert [each.rows for each in seen] == [0, 1000]
    assert not list((studio_home / "uploads").iterdir())
