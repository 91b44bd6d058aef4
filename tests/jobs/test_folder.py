"""A job's folder: names, paths and what counts as a checkpoint."""

import json

import pytest
from filelock import FileLock

from studio.errors import JobError, StudioError
from studio.home import write_atomically
from studio.jobs import folder as folders
from studio.jobs.folder import export_target
from studio.specs import ExportSpec, TrainSpec, parse


def spec(**values):
    return parse(TrainSpec, {"data": {"datasets": ["identity-en"]}} | values)


def test_a_new_job_keeps_the_spec_that_it_was_made_of(studio_home):
    made = folders.create("train", spec(training={"max_steps": 7}), "first")
    assert folders.find(made.id).read_spec() == spec(training={"max_steps": 7})
    assert made.read_about()["kind"] == "train" and made.id.startswith("first-")


def test_many_jobs_of_one_name_have_folders_of_their_own(studio_home):
    assert len({folders.create("train", spec(), "same").id for _ in range(20)}) == 20


@pytest.mark.parametrize("name", ["../x", "a;rm -rf", "-x", "CON", "x" * 300, "", ".", "a/b", "Ünïcode", "a\n"])
def test_f22_a_name_that_is_no_file_name_is_refused_with_the_pattern(studio_home, name):
    with pytest.raises(StudioError, match="letters, digits"):
        folders.create("train", spec(), name)
    assert list(studio_home.glob("jobs/*")) == []


@pytest.mark.parametrize("job_id", ["../../etc", "nothing", "", "a/b", "."])
def test_an_unknown_job_is_an_error_whatever_its_name(studio_home, job_id):
    with pytest.raises(JobError, match="Unknown job"):
        folders.find(job_id)


def test_a_near_name_is_suggested(studio_home):
    made = folders.create("train", spec(), "alpha")
    with pytest.raises(JobError, match=f"Did you mean '{made.id}'"):
        folders.find(made.id[:-1] + "z")


def test_a_held_lock_is_seen_and_a_left_one_is_not(studio_home):
    made = folders.create("train", spec(), "locked")
    assert not made.is_locked()
    with FileLock(made.lock):
        assert made.is_locked()
    assert not made.is_locked()


def test_only_whole_checkpoints_count(studio_home):
    made = folders.create("train", spec(), "kept")
    for step in (10, 20):
        made.checkpoint(step).mkdir(parents=True)
    (made.checkpoint(10) / "manifest.json").write_text("{}")
    assert made.checkpoint_steps() == (10,)
    assert made.adapter_at() == made.checkpoint(10)
    with pytest.raises(JobError, match="no checkpoint at step 20. Kept: 10"):
        made.adapter_at(20)


def test_the_finished_adapter_comes_before_the_newest_checkpoint(studio_home):
    made = folders.create("train", spec(), "done")
    with pytest.raises(JobError, match="has no adapter yet"):
        made.adapter_at()
    made.adapter.mkdir()
    assert made.adapter_at() == made.adapter


def test_an_atomic_write_leaves_the_old_text_when_it_fails(tmp_path):
    target = tmp_path / "file.json"
    write_atomically(target, json.dumps([1]))
    with pytest.raises(UnicodeEncodeError):
        write_atomically(target, "\ud800")
    assert target.read_text() == "[1]" and list(tmp_path.iterdir()) == [target]


def test_exports_are_named_after_run_step_and_precision(studio_home):
    assert export_target(ExportSpec(run="r", checkpoint=5, dtype="fp16")).name == "r-step5-merged-fp16"
    assert export_target(ExportSpec(run="r", format="adapter")).parent == studio_home / "exports"
