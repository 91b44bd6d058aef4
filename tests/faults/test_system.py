"""The faults of disks, ports, devices and records, by their number in the fault matrix.

Not here: kills, signals and the queue.
"""

import errno
import json
import os
import socket
import subprocess
from contextlib import suppress

import pytest

from studio.data import registry
from studio.engine import checks
from studio.engine.callbacks import complete_checkpoints
from studio.engine.export import export
from studio.engine.limits import disk
from studio.errors import DataError, ExportError, SpecError, StudioError
from studio.events import Note, Phase, Step
from studio.hardware import Hardware, choices
from studio.home import home
from studio.jobs import folder as folders
from studio.jobs.journal import Journal, tail
from studio.jobs.monitor import view_of
from studio.specs import ExportSpec, TrainSpec, parse
from studio.ui import app
from tests.engine.test_train import spec
from tests.examples import finished_run

GOOD = {"instruction": "Say 1.", "output": "1"}


@pytest.fixture
def small_disk(tmp_path):
    """small_disk(kib) -> a folder on a disk of that size; skips where none can be made."""
    places = []

    def make(kib):
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=10)
        except OSError as error:
            pytest.skip(f"no mount here: {error}")
        if done.returncode:
            pytest.skip("no right to mount a small disk")
        places.append(place)
        return place

    yield make
    for place in places:
        subprocess.run(["umount", "-l", str(place)], check=True, timeout=10)


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def contents(place):
    return {path: path.read_bytes() for path in place.rglob("*") if path.is_file() and path.name != ".lock"}


# --- a full disk


def test_f53_an_upload_beyond_the_disk_is_told_and_leaves_what_was_there(small_disk, monkeypatch, tmp_path):
    monkeypatch.setenv("STUDIO_HOME", str(small_disk(512)))
    (tmp_path / "small.jsonl").write_text(json.dumps(GOOD))
    (tmp_path / "large.jsonl").write_text("".join(json.dumps(GOOD | {"output": "1" * n}) + "\n" for n in range(2000)))
    registry.add(tmp_path / "small.jsonl", "small")
    before = contents(home().path)
    with pytest.raises(DataError, match=rf"Disk full at {home().uploads}\. Nothing was added\. Free some space"):
        registry.add(tmp_path / "large.jsonl", "large")
    assert contents(home().path) == before
    registry.verify(registry.get("small"))


def test_f53_an_entry_that_cannot_be_written_leaves_no_rows_behind(add, monkeypatch, tmp_path):
    add([GOOD], "first")
    before = contents(home().path)
    monkeypatch.setattr(registry, "write_atomically", full)
    with pytest.raises(DataError, match=r"Disk full at .*second\.json\. Nothing was changed\. Free some space"):
        add([GOOD | {"output": "2"}], "second")
    with pytest.raises(DataError, match=r"Disk full at .*other\.json"):
        registry.rename("first", "other")
    assert contents(home().path) == before


def test_f53_a_checkpoint_beyond_the_disk_pauses_the_run_which_then_stops_cleanly(tiny, dataset, run, monkeypatch):
    wanted = spec(tiny(), dataset, training={"save_steps": 2})
    assert run(wanted, stop_at=2) is None
    kept = contents(run.checkpoints)
    monkeypatch.setattr(disk.Room, "_free", lambda self: 1024)
    real = disk.Room.__init__

    def stopped_while_it_waits(self, checkpoints, _, emit, **options):
        real(self, checkpoints, lambda: "no_room" in [event.name for event in run.of(Phase)], emit, **options)

    monkeypatch.setattr(disk.Room, "__init__", stopped_while_it_waits)
    assert run(wanted) is None
    (told,) = [note.text for note in run.of(Note) if note.text.startswith("Paused after step")]
    assert str(run.checkpoints) in told and "Free some space, and the run goes on by itself" in told
    assert contents(run.checkpoints) == kept and not run.adapter.exists()


def test_f53_an_adapter_that_finds_no_room_at_the_end_names_the_disk_and_leaves_the_checkpoints(
    tiny, dataset, run, monkeypatch
):
    from safetensors import SafetensorError

    def no_room(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Disk full") as refused:
        patch.setattr("studio.engine.train._save", no_room)
        run(spec(tiny(), dataset, training={"save_steps": 3}))
    assert (refused.value.errno, refused.value.filename) == (errno.ENOSPC, str(run.adapter.parent))
    assert [step for step, _ in complete_checkpoints(run.checkpoints)] == [3, 6] and not run.adapter.exists()
    assert run(spec(tiny(), dataset, training={"save_steps": 3})) == run.adapter
    assert not run.of(Step), "it goes on from its last checkpoint"


def test_f53_what_torch_and_safetensors_say_of_a_full_disk_is_told_as_one(small_disk):
    import torch
    from safetensors.torch import save_file

    place, weights = small_disk(256), {"a": torch.ones(512, 512)}
    for write in (lambda: save_file(weights, place / "a"), lambda: torch.save(weights, place / "b")):
        with pytest.raises(OSError, match="Disk full") as refused, disk.full_disk_named(place):
            write()
        assert refused.value.filename == str(place)
    with pytest.raises(RuntimeError, match="another"), disk.full_disk_named(place):
        raise RuntimeError("another fault")


@pytest.mark.parametrize("kind", ["adapter", "merged"])
def test_f53_an_export_beyond_the_disk_is_told_and_leaves_nothing(tiny, dataset, run, small_disk, kind):
    wanted = spec(tiny(), dataset, training={"max_steps": 1, "accumulation": 1})
    run(wanted)
    place, before = small_disk(128), contents(run.adapter)
    with pytest.raises(ExportError, match=rf"The export cannot be written: Disk full at {place / 'out'}\. Choose"):
        export(
            ExportSpec(run="r", format=kind),
            trained=wanted,
            adapter=run.adapter,
            target=place / "out",
            emit=lambda event: None,
            stopping=lambda: False,
        )
    assert list(place.iterdir()) == [] and contents(run.adapter) == before


def test_f53_a_run_that_cannot_be_written_down_is_told_at_the_shell_and_is_no_job(shell, small_disk, monkeypatch):
    place = small_disk(256)
    monkeypatch.setenv("STUDIO_HOME", str(place))
    assert shell("jobs", "list")[0] == 0
    with (place / "filling").open("wb") as file, suppress(OSError):
        file.write(b"x" * 1024**2)
    status, out, err = shell("train", "--set", "data.datasets=identity-en", "--json")
    assert status == 1 and err.startswith(f"Disk full at {place}") and json.loads(out) == {"error": err.strip()}
    assert list(folders.every()) == []


# --- a folder that may not be written to


def test_f54_a_home_below_a_file_is_named_at_start(shell, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "file"))
    for arguments in (("jobs", "list"), ("train", "--set", "data.datasets=identity-en")):
        status, _, err = shell(*arguments)
        assert status == 1 and f"Cannot write to {tmp_path / 'file'}" in err and "Set STUDIO_HOME" in err


def test_f54_a_read_only_home_is_named_at_start(shell, small_disk, monkeypatch):
    place = small_disk(64)
    monkeypatch.setenv("STUDIO_HOME", str(place))
    assert home().jobs.is_dir()
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True, timeout=10)
    status, _, err = shell("train", "--set", "data.datasets=identity-en")
    assert status == 1 and f"Cannot write to {place}" in err and "Set STUDIO_HOME to a folder you can write to." in err


# --- ports and devices


def test_f63_a_port_in_use_is_named_and_another_offered(shell):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StudioError, match=rf"Port {port} is in use\. Try --port \d+") as refused:
            app.serve(port=port)
        offered = int(str(refused.value).rpartition(" ")[2])
        with socket.create_server(("127.0.0.1", offered)):
            assert offered != port


@pytest.mark.parametrize(
    ("sections", "field"),
    [
        ({"quantization": {"kind": "nf4"}}, "quantization.kind"),
        ({"quantization": {"kind": "int8"}}, "quantization.kind"),
        ({"training": {"optimizer": "paged_adamw_8bit"}}, "training.optimizer"),
    ],
)
def test_f64_without_bitsandbytes_the_refusal_comes_before_loading(tiny, dataset, run, monkeypatch, sections, field):
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name == "bitsandbytes" else object())
    with pytest.raises(SpecError) as refused:
        run(spec(tiny(), dataset, **sections))
    (fault,) = refused.value.faults
    assert fault.field == field and "needs the package bitsandbytes, which is not installed" in fault.reason
    assert "pip install bitsandbytes" in fault.reason
    assert "load" not in [event.name for event in run.of(Phase)]


def test_f64_without_a_gpu_what_auto_becomes_is_stated_with_the_reason():
    cpu = Hardware(cores=2, memory_gib=24)
    said = choices(parse(TrainSpec, {}), cpu)
    assert said["training.optimizer"].value == "adamw_torch" and "on a CPU" in said["training.optimizer"].why
    assert said["training.precision"].value == "fp32" and "no bf16" in said["training.precision"].why
    assert str(cpu).startswith("no GPU")


def test_f64_fp16_without_a_gpu_is_refused_before_loading(tiny, dataset, run, monkeypatch):
    monkeypatch.setattr("studio.hardware.detect", lambda: Hardware(cores=2, memory_gib=24, bf16=True))
    with pytest.raises(SpecError, match=r"training\.precision: fp16 needs a GPU\. Set it to auto, bf16 or fp32"):
        run(spec(tiny(), dataset, training={"precision": "fp16"}))
    assert "load" not in [event.name for event in run.of(Phase)]


# --- records


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "bad"}', "\x00" * 50, "[" * 5000])
def test_f67_a_corrupt_entry_is_quarantined_and_the_others_work(add, shell, text):
    add([GOOD], "mine")
    (home().datasets / "bad.json").write_text(text)
    status, out, err = shell("data", "list")
    assert status == 0 and "mine" in out and "bad.json was damaged and was set aside as" in err
    assert (home().datasets / "bad.json.corrupt").read_text() == text
    registry.verify(registry.get("mine"))
    assert shell("data", "add", str(home().path.parent / "mine.jsonl"), "--name", "bad")[0] == 0


def test_f68_torn_and_garbage_event_lines_are_skipped_and_counted(shell):
    folder = finished_run()
    whole, lines = view_of(folder), folder.events.read_bytes().splitlines()
    garbage = [
        lines[2][:20],
        b"\xff\xfe\x00",
        b"null",
        b"[" * 5000,
        b'{"type": "unheard", "time": 1}',
        b'{"type": "step"}',
    ]
    mixed = [line for pair in zip(lines, garbage, strict=False) for line in pair] + lines[len(garbage) :]
    folder.events.write_bytes(b"\n".join(mixed) + b'\n{"type":"st')
    events, _, skipped = tail(folder.events)
    assert len(events) == len(lines) and skipped == len(garbage)
    view = view_of(folder)
    assert (view.state, view.step, view.steps) == (whole.state, whole.step, whole.steps)
    status, out, _ = shell("jobs", "list", "--json")
    assert status == 0 and json.loads(out)[0]["state"] == "finished"


def test_f68_a_further_attempt_is_not_glued_to_half_a_line(studio_home):
    folder = finished_run()
    events = tail(folder.events)[0]
    with folder.events.open("ab") as file:
        file.write(b'{"type":"step","step":4,"lo')
    journal = Journal(folder.events, 2)
    journal.append(events[-1])
    journal.close()
    found, _, skipped = tail(folder.events)
    assert len(found) == len(events) + 1 and skipped == 1
    assert next(iter(folders.every())).id == folder.id
