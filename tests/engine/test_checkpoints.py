"""Checkpoints are read back only as they were written."""

import json

import pytest

from studio.engine.checkpoints import DAMAGED, MANIFEST, complete_checkpoints, fault_of, newest_whole, seal
from studio.errors import ModelError

PARTS = ("optimizer.pt", "scheduler.pt", "trainer_state.json", "rng_state.pth", "adapter_model.safetensors")


def saved(place, step, *, without=()):
    folder = place / f"checkpoint-{step}"
    folder.mkdir()
    for name in PARTS:
        if name not in without:
            (folder / name).write_bytes(f"{name} at {step}".encode())
    seal(folder, step, data={"rows": "a digest"})
    return folder


def flip(path):
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)


def shorten(path):
    path.write_bytes(path.read_bytes()[:-1])


def lose(path):
    path.unlink()


def test_the_newest_by_step_is_taken_with_what_its_manifest_says(tmp_path):
    for step in (9, 10, 2):
        saved(tmp_path, step)
    found, damaged = newest_whole(tmp_path)
    assert (found.step, found.folder.name, found.facts["data"]) == (10, "checkpoint-10", {"rows": "a digest"})
    assert damaged == [] and [step for step, _ in complete_checkpoints(tmp_path)] == [2, 9, 10]


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize(
    ("harm", "told"), [(flip, "other bytes"), (shorten, "bytes"), (lose, "is missing")], ids=["flip", "short", "lost"]
)
def test_f55_a_damaged_file_makes_the_one_before_the_newest_and_is_told(tmp_path, name, harm, told):
    saved(tmp_path, 4)
    harm(saved(tmp_path, 8) / name)
    found, damaged = newest_whole(tmp_path)
    assert found.step == 4 and len(damaged) == 1
    assert "step 8" in damaged[0] and name in damaged[0] and told in damaged[0]
    (aside,) = tmp_path.glob(f"{DAMAGED}*")
    assert fault_of(aside) and [step for step, _ in complete_checkpoints(tmp_path)] == [4]


def test_a_half_save_is_passed_over_and_a_manifest_that_is_torn_is_damage(tmp_path):
    saved(tmp_path, 4)
    (tmp_path / "checkpoint-6").mkdir()
    (saved(tmp_path, 8) / MANIFEST).write_text('{"step": 8, "fil')
    found, damaged = newest_whole(tmp_path)
    assert found.step == 4 and "manifest.json" in damaged[0]
    assert (tmp_path / "checkpoint-6").is_dir(), "the next save at this step replaces it"


@pytest.mark.parametrize("name", PARTS[:4])
def test_f55_a_checkpoint_that_would_begin_a_part_anew_is_refused(tmp_path, name):
    saved(tmp_path, 4, without=[name])
    with pytest.raises(ModelError, match=rf"checkpoint-4: it was saved without {name}.*start a new run"):
        newest_whole(tmp_path)
    assert (tmp_path / "checkpoint-4" / MANIFEST).is_file(), "a second try is refused too"
    with pytest.raises(ModelError):
        newest_whole(tmp_path)


def test_without_checkpoints_a_run_begins(tmp_path):
    assert newest_whole(tmp_path) == (None, []) == newest_whole(tmp_path / "none")


def test_a_manifest_names_every_file_but_itself(tmp_path):
    folder = saved(tmp_path, 4)
    seal(folder, 4)
    assert set(json.loads((folder / MANIFEST).read_text())["files"]) == set(PARTS) and fault_of(folder) is None
