"""Submitting, stopping and resuming, with recorded events in the place of a worker."""

import time

import pytest

from studio import specs
from studio.data import registry
from studio.errors import JobError, SpecError
from studio.events import Ended, Plan, Step
from studio.jobs import control
from studio.jobs import folder as folders
from studio.jobs.executors.replay import Replay
from studio.jobs.monitor import view_of
from studio.specs import ExportSpec, TrainSpec

T0 = 1_000_000.0
PLAN = Plan(
    time=T0, total_steps=40, rows=5, effective_batch_size=2, trainable_parameters=1, total_parameters=2, device="cpu"
)


def recorded(steps: int, *, last: str | None = "finished"):
    events = [PLAN]
    events += [Step(time=T0 + n, step=n, epoch=0.0, loss=1 / n, learning_rate=1e-4) for n in range(1, steps + 1)]
    return [*events, Ended(time=T0 + steps, state=last)] if last else events


def spec(name: str = "run") -> TrainSpec:
    return specs.parse(TrainSpec, {"data": {"datasets": ["identity-en"]}, "output": {"name": name}})


class Dead:
    """An executor whose worker dies before its first word."""

    def start(self, folder):
        folder.log.write_text("Killed\n")


def test_a_job_is_followed_from_its_first_event_to_its_end(studio_home):
    folder = control.submit(spec(), executor=Replay(recorded(5), speed=1000))
    losses = [event.loss for event in control.follow(folder) if isinstance(event, Step)]
    assert losses == [1 / n for n in range(1, 6)]
    assert control.wait(folder).state == "finished"


def test_stop_ends_a_run_at_its_next_step_and_resume_starts_a_further_attempt(studio_home):
    folder = control.submit(spec(), executor=Replay(recorded(1000), speed=20))
    until = time.time() + 60
    while not view_of(folder).steps and time.time() < until:
        time.sleep(0.02)
    control.stop(folder.id)
    list(control.follow(folder))
    assert view_of(folder).state == "stopped"
    control.resume(folder.id, executor=Replay(recorded(3), speed=1000))
    while view_of(folder).live:
        time.sleep(0.02)
    view = view_of(folder)
    assert (view.state, view.attempt, view.step) == ("finished", 2, 3)


def test_a_finished_run_is_not_resumed(studio_home):
    folder = control.submit(spec(), executor=Replay(recorded(2), speed=1000))
    control.wait(folder)
    with pytest.raises(JobError, match="has finished"):
        control.resume(folder.id)
    with pytest.raises(JobError, match="is not running"):
        control.stop(folder.id)


def test_a_failed_run_raises_its_own_message(studio_home):
    ended = Ended(time=T0, state="failed", message="Row 3 is odd.")
    with pytest.raises(JobError, match="Row 3 is odd"):
        control.wait(control.submit(spec(), executor=Replay([ended])))


def test_a_worker_that_dies_unheard_is_told_with_its_log(studio_home, monkeypatch):
    monkeypatch.setattr("studio.jobs.monitor.STARTING_S", 0.2)
    folder = control.submit(spec(), executor=Dead())
    with pytest.raises(JobError, match="died while it was starting(.|\n)*Killed"):
        control.wait(folder)


def test_an_export_of_an_unknown_run_is_refused_before_a_job_is_made(studio_home):
    with pytest.raises(JobError, match="Unknown job"):
        control.submit(ExportSpec(run="nothing"))
    assert list(folders.every()) == []


@pytest.mark.parametrize(
    ("names", "said"), [([], "Choose at least one"), (["identity_en"], "Did you mean 'identity-en'")]
)
def test_a_run_that_names_no_dataset_or_an_unknown_one_is_refused_before_a_job_is_made(studio_home, names, said):
    with pytest.raises(SpecError, match=said):
        control.submit(specs.parse(TrainSpec, {"data": {"datasets": names}}), executor=Dead())
    assert list(folders.every()) == []


def test_a_run_on_faulty_rows_is_refused_before_a_job_is_made_unless_they_are_to_be_skipped(studio_home, tmp_path):
    path = tmp_path / "half.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "c"}\noops\n')
    registry.add(path, "half")
    with pytest.raises(SpecError) as caught:
        control.submit(specs.parse(TrainSpec, {"data": {"datasets": ["half", "identity-en"]}}), executor=Dead())
    (fault,) = caught.value.faults
    assert fault.field == "data.skip_faulty" and list(folders.every()) == []
    assert "'half' has 2 faulty rows of 3. Row 2 of half.jsonl: completion is missing" in fault.reason
    wanted = specs.parse(TrainSpec, {"data": {"datasets": ["half"], "skip_faulty": True}})
    assert control.submit(wanted, executor=Replay(recorded(1), speed=1000)).read_spec() == wanted


def test_relative_folders_are_settled_where_they_were_asked_for(studio_home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = specs.parse(TrainSpec, {"model": {"name": "./mine"}, "data": {"datasets": "identity-en"}})
    run = control.submit(wanted, executor=Replay(recorded(1), speed=1000))
    assert run.read_spec().model.name == str(tmp_path / "mine")
    control.wait(run)
    run.adapter.mkdir()
    job = control.submit(ExportSpec(run=run.id, out="merged"), executor=Replay(recorded(1), speed=1000))
    assert job.read_spec().out == str(tmp_path / "merged")
    with pytest.raises(JobError, match="exists already"):
        control.submit(ExportSpec(run=run.id, out=str(tmp_path)), executor=Dead())


def starting(*names):
    return specs.parse(TrainSpec, {"data": {"datasets": ["identity-en"]}, "start": {"adapters": names}})


def test_what_a_run_goes_on_from_is_looked_for_before_it_starts(studio_home, tmp_path):
    from tests.examples import finished_run

    run = finished_run(checkpoints=(2,))
    with pytest.raises(SpecError) as error:
        control.submit(starting("rum", f"{run.id}@3", f"{run.id}@x", str(tmp_path / "nowhere")), executor=Dead())
    said = [str(fault) for fault in error.value.faults]
    assert said[0].startswith("start.adapters: Unknown job 'rum'") and "no checkpoint at step 3. Kept: 2." in said[1]
    assert "not of the form RUN@STEP" in said[2] and "There is no folder" in said[3]
    assert folders.earlier(run.id) == run.adapter and folders.earlier(f"{run.id}@2") == run.checkpoint(2)
    assert folders.earlier(str(tmp_path)) == tmp_path


def test_relative_folders_to_go_on_from_are_made_absolute(studio_home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adapter").mkdir()
    folder = control.submit(starting("./adapter"), executor=Replay(recorded(1), speed=1000))
    assert folder.read_spec().start.adapters == (str(tmp_path / "adapter"),)


def test_rows_that_the_stage_learns_nothing_from_are_refused_at_once(studio_home):
    wanted = specs.parse(TrainSpec, {"data": {"datasets": ["identity-en"]}, "stage": {"kind": "dpo"}})
    with pytest.raises(
        SpecError, match=r"data\.datasets: 'identity-en' has nothing for the stage dpo: its rows hold no"
    ):
        control.submit(wanted, executor=Dead())
