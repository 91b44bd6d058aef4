"""The real worker, as a process of its own, on a tiny model: it reports, stops, dies and resumes."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from studio import specs
from studio.data import registry
from studio.errors import JobError
from studio.events import Step
from studio.jobs import control, worker
from studio.jobs import folder as folders
from studio.jobs.journal import Journal, tail
from studio.jobs.monitor import view_of
from studio.specs import EvaluateSpec, ExportSpec, TemplateSpec, TrainSpec
from tests.engine.conftest import make

PATIENCE_S = 120


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory) -> Path:
    return make("llama", tmp_path_factory.mktemp("worker") / "llama")


@pytest.fixture
def sums(studio_home, tmp_path):
    rows = [{"instruction": f"{a} + {b} = ?", "output": f"It is {a + b}."} for a in range(8) for b in range(8)]
    path = tmp_path / "sums.json"
    path.write_text(json.dumps(rows))
    return registry.add(path, "sums").name


def spec(model: Path, dataset: str, **training) -> TrainSpec:
    return specs.parse(
        TrainSpec,
        {
            "model": {"name": str(model)},
            "quantization": {"kind": "nf4"},
            "data": {"datasets": [dataset], "max_length": 64, "validation_share": 0.1},
            "method": {"dropout": 0.1},
            "training": {"max_steps": 6, "batch_size": 2, "accumulation": 1, "save_steps": 2, "learning_rate": 1e-2}
            | training,
            "evaluation": {"prompts": ["1 + 1 = ?"], "max_new_tokens": 4},
        },
    )


def until(condition, what: str):
    end = time.time() + PATIENCE_S
    while not condition():
        assert time.time() < end, f"{what} did not happen within {PATIENCE_S} s"
        time.sleep(0.05)


def pid(folder) -> int:
    return next(event.pid for event in reversed(tail(folder.events)[0]) if event.type == "started")


def losses(folder) -> dict[int, float]:
    return {step.step: step.loss for step in view_of(folder).steps}


def test_train_evaluate_and_export_are_jobs_with_a_record_each(tiny_model, sums):
    run = control.submit(spec(tiny_model, sums))
    assert control.wait(run).state == "finished"
    assert run.adapter.is_dir() and run.checkpoint_steps() == (2, 4, 6)
    measured = control.wait(control.submit(EvaluateSpec(run=run.id, max_samples=3, max_new_tokens=3)))
    assert {each.subject for each in measured.measured} == {"base", "adapter"}
    assert len(folders.find(measured.id).predictions.read_text().splitlines()) == 3
    exported = control.wait(control.submit(ExportSpec(run=run.id, dtype="fp32")))
    assert (Path(exported.ended.path) / "model.safetensors").is_file()
    assert any("full-precision base" in note for note in exported.notes)


def test_a_failure_is_told_in_the_users_words_and_the_process_ends(tiny_model, sums):
    wanted = spec(tiny_model, sums).model_copy(update={"template": TemplateSpec(name="chatmll")})
    run = control.submit(wanted)
    with pytest.raises(JobError, match="Unknown template 'chatmll'. Did you mean 'chatml'"):
        control.wait(run)
    until(lambda: not run.is_locked(), "the end of the worker")


def test_f55_a_killed_worker_is_seen_as_such_and_its_resume_equals_the_uninterrupted_run(tiny_model, sums):
    whole = control.submit(spec(tiny_model, sums, max_steps=30))
    control.wait(whole)
    run = control.submit(spec(tiny_model, sums, max_steps=30))
    until(lambda: len(run.checkpoint_steps()) >= 1, "a checkpoint")
    os.kill(pid(run), signal.SIGKILL)
    until(lambda: view_of(run).state == "killed", "the state killed")
    assert view_of(run).step < 30
    control.resume(run.id)
    until(lambda: view_of(run).state == "finished", "the end of the resumed run")
    assert view_of(run).attempt == 2 and losses(run) == losses(whole)
    name = "adapter_model.safetensors"
    assert (run.adapter / name).read_bytes() == (whole.adapter / name).read_bytes()


def test_f56_a_terminated_worker_saves_at_the_next_step_and_ends_as_stopped(tiny_model, sums):
    run = control.submit(spec(tiny_model, sums, max_steps=100_000, save_steps=100_000))
    until(lambda: view_of(run).step >= 2, "the second step")
    os.kill(pid(run), signal.SIGTERM)
    until(lambda: not run.is_locked(), "the end of the worker")
    view = view_of(run)
    assert view.state == "stopped" and run.checkpoint_steps() == (view.step,)


def test_f59_a_second_worker_on_one_folder_leaves_at_once(tiny_model, sums):
    run = control.submit(spec(tiny_model, sums, max_steps=100_000))
    until(lambda: view_of(run).step >= 1, "the first step")
    from studio.jobs.executors import local

    local.start(run)
    until(lambda: "already has a worker" in run.log.read_text(), "the second worker's refusal")
    assert view_of(run).attempt == 1 and view_of(run).state == "running"
    control.stop(run.id)
    until(lambda: view_of(run).state == "stopped", "the stop")


def test_f70_no_secret_of_the_environment_reaches_the_worker(tiny_model, sums, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "sesame-open-4711")
    monkeypatch.setenv("WANDB_TOKEN", "sesame-open-4711")
    run = control.submit(spec(tiny_model, sums, max_steps=100_000))
    until(lambda: bool(view_of(run).steps), "the first step")
    environment = Path(f"/proc/{pid(run)}/environ").read_bytes()
    control.stop(run.id)
    until(lambda: not run.is_locked(), "the end")
    assert b"sesame" not in environment
    assert all(b"sesame" not in path.read_bytes() for path in run.path.rglob("*") if path.is_file())


def test_steps_are_told_while_they_happen(tiny_model, sums):
    run = control.submit(spec(tiny_model, sums, max_steps=100_000))
    seen = []
    for event in control.follow(run):
        if isinstance(event, Step):
            seen.append(event.step)
            if len(seen) == 3:
                control.stop(run.id)
    assert seen[:3] == [1, 2, 3] and len(seen) < 1000


@pytest.mark.parametrize(("outcome", "state"), [(Path("adapter"), "finished"), (None, "stopped")])
def test_a_wish_to_stop_after_the_last_step_does_not_make_a_finished_job_a_stopped_one(
    studio_home, monkeypatch, outcome, state
):
    run = folders.create("train", specs.parse(TrainSpec, {}), "late")

    def story(folder, emit, stopping):
        folder.ask_to_stop()
        return outcome

    monkeypatch.setattr(worker, "_story", lambda kind: story)
    ended = worker._run(run, Journal(run.events, 1))
    assert (ended.state, ended.path) == (state, outcome and str(outcome))
