"""The Python API: instant to import, and the same jobs as the shell's."""

import ast
import subprocess
import sys

import pytest

import studio
from studio.events import Ended, Measured
from studio.jobs.executors.replay import Replay
from studio.serving.voices import BASE
from tests.cli.test_cli import CHECKOUT
from tests.examples import finished_run, training
from tests.serving.fakes import FakeClient


def spec():
    return studio.TrainSpec(data={"datasets": "identity-en"})


def test_importing_the_package_imports_nothing_of_weight():
    code = "import sys; before = set(sys.modules); import studio; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    tops = {name.partition(".")[0] for name in ast.literal_eval(done.stdout)}
    assert tops - {"studio"} <= sys.stdlib_module_names


def test_every_public_name_is_there_and_documented():
    for name in studio.__all__:
        assert getattr(studio, name).__doc__, name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        studio.trian  # noqa: B018


def test_train_returns_the_finished_job(studio_home):
    seen = []
    job = studio.train(spec(), on_event=seen.append, executor=Replay(training()))
    assert job.state == "finished"
    assert [event.step for event in seen if event.type == "step"] == [1, 2, 3]
    assert job.folder.is_dir() and job.path.name == "adapter"


def test_train_without_waiting_returns_a_job_that_can_be_stopped(studio_home):
    job = studio.train(spec(), wait=False, executor=Replay(training(steps=400, step_s=0.05), speed=1.0))
    for event in job.events():
        if event.type == "step" and event.step == 1:
            job.stop()
    assert job.state == "stopped"


def test_a_failed_run_raises_its_message(studio_home):
    with pytest.raises(studio.StudioError, match=r"Out of memory\."):
        studio.train(spec(), executor=Replay(training("failed", "Out of memory.")))


def test_evaluate_takes_a_job_and_gives_scores_by_subject(studio_home):
    run = studio.Job(finished_run().id)
    events = [
        Measured(subject="base", scores={"loss": 3.0}),
        Measured(subject="adapter", scores={"loss": 1.0}),
        Ended(state="finished"),
    ]
    job = studio.evaluate(run, max_samples=5, executor=Replay(events))
    assert job.scores == {"base": {"loss": 3.0}, "adapter": {"loss": 1.0}}
    assert job.view.spec["max_samples"] == 5


def test_export_settles_a_relative_target(studio_home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = studio.export(finished_run().id, out="mine", executor=Replay([Ended(state="finished")]))
    assert job.view.spec["out"] == str(tmp_path / "mine")


def test_a_wrong_field_is_named(studio_home):
    with pytest.raises(studio.StudioError, match="max_samples: must be at least 1"):
        studio.evaluate("run", max_samples=0)


def test_load_reads_a_file_and_applies_overrides(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text("method: {rank: 4}\n")
    assert studio.load(path, ["method.alpha=8"]).method.model_dump(include={"rank", "alpha"}) == {"rank": 4, "alpha": 8}


def test_chat_with_an_adapter_asks_it_with_the_system_text_it_was_trained_with(studio_home):
    run = studio.Job(finished_run(sets=["template.system=You are Miro."]).id)
    client = FakeClient({run.id: ["I am", " Miro."]})
    assert studio.chat("Who are you?", adapter=run, client=client, temperature=0.5) == "I am Miro."
    ((_, messages),) = client.requests[0]
    assert [message["content"] for message in messages] == ["You are Miro.", "Who are you?"]
    assert client.samplings[0].temperature == 0.5


def test_chat_without_an_adapter_asks_the_base(studio_home):
    client = FakeClient({BASE: ["Hello."]})
    assert studio.chat("Hi", model="some/model", client=client) == "Hello."
    assert client.ensured[0]["base"] == "some/model"
