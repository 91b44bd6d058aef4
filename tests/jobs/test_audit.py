"""An audit as a job: submitted, run by a worker without torch, stopped, and read again."""

import json
import subprocess
import sys

import pytest

import studio
from studio import specs
from studio.data import registry
from studio.data.audit import report
from studio.errors import JobError, SpecError
from studio.events import Ended, Plan
from studio.jobs import control
from studio.jobs import folder as folders
from studio.jobs.executors import local
from studio.jobs.executors.replay import Replay
from studio.jobs.monitor import view_of
from studio.specs import AuditSpec, TrainSpec
from tests.ui.tiny_model import tiny_model

PLAN = Plan(total_steps=9, rows=5, effective_batch_size=1, trainable_parameters=1, total_parameters=2, device="cpu")


@pytest.fixture
def sums(studio_home, tmp_path):
    rows = [{"instruction": f"{a} + {b} = ?", "output": f"It is {a + b}."} for a in range(8) for b in range(8)]
    path = tmp_path / "sums.json"
    path.write_text(json.dumps([*rows, rows[5]]))
    return registry.add(path, "sums").name


def spec(**fields):
    return specs.parse(AuditSpec, {"dataset": "sums", **fields})


def test_an_audit_is_a_job_that_ends_with_its_report(sums, tmp_path):
    model = tiny_model(tmp_path / "tiny")
    job = studio.audit(sums, model=str(model), max_length=64)
    assert job.state == "finished" and job.id.startswith("audit-sums-")
    assert job.path == folders.find(job.id).report
    assert (job.report.rows, job.report.duplicates) == (65, 1) and job.report.tokens["rows"] == 65
    assert report.positions(folders.find(job.id).findings, "duplicate") == [64]


def test_an_audit_with_tokens_loads_neither_torch_nor_gradio(sums, tmp_path):
    folder = folders.create("audit", spec(model=str(tiny_model(tmp_path / "tiny"))), "audit-sums")
    said = (
        "import sys; from studio.jobs import worker; status = worker.main(sys.argv[1]);"
        "heavy = {'torch', 'transformers', 'trl', 'peft', 'gradio'} & set(sys.modules); sys.exit(status or len(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", said, str(folder.path)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert view_of(folder).ended.state == "finished"


def test_several_audits_run_beside_a_training_run(sums):
    run = control.submit(
        specs.parse(TrainSpec, {"data": {"datasets": ["identity-en"]}}), executor=Replay([PLAN] * 400, speed=20)
    )
    waiting = Replay([PLAN] * 400, speed=20)
    ids = [control.submit(spec(), executor=waiting).id for _ in range(2)]
    assert len(set(ids)) == 2
    for each in (run.id, *ids):
        control.stop(each)


def test_a_stopped_audit_is_stopped_and_a_resumed_one_begins_anew(sums):
    folder = folders.create("audit", spec(), "audit-sums")
    folder.ask_to_stop()
    local.start(folder)
    assert control.wait(folder).state == "stopped"
    assert not folder.findings.exists() and not folder.report.exists()
    told = folder.events.stat().st_size
    control.wait(control.resume(folder.id), offset=told)
    assert view_of(folder).state == "finished" and folder.report.is_file()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"dataset": "sum"}, "dataset: Unknown dataset 'sum'. Did you mean 'sums'"),
        ({"against": "identity_en"}, "against: Unknown dataset 'identity_en'. Did you mean 'identity-en'"),
    ],
)
def test_an_unknown_dataset_is_refused_before_a_job_is_made(sums, fields, said):
    with pytest.raises(SpecError, match=said.replace("?", r"\?")):
        control.submit(spec(**fields))
    assert list(folders.every()) == []


def test_a_model_that_is_not_here_fails_the_audit_in_words(sums, tmp_path):
    with pytest.raises(JobError, match="There is no model folder"):
        studio.audit(sums, model=str(tmp_path / "none"))


def test_a_relative_model_folder_is_settled_where_it_was_asked_for(sums, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = control.submit(spec(model="./tiny"), executor=Replay([Ended(state="finished")], speed=1000))
    assert job.read_spec().model == str(tmp_path / "tiny")


def test_a_long_name_of_a_dataset_still_makes_a_valid_id(studio_home, tmp_path):
    path = tmp_path / "long.json"
    path.write_text('[{"instruction": "a", "output": "b"}]')
    name = "a" * 41 + "." + "b" * 20
    registry.add(path, name)
    job = control.submit(
        specs.parse(AuditSpec, {"dataset": name}), executor=Replay([Ended(state="finished")], speed=1000)
    )
    assert folders.find(job.id).id.startswith("audit-aaaa")
