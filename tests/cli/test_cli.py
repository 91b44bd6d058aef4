"""The shell command as a program sees it: exit status, what is on stdout, and what is on stderr."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from studio.cli import main
from studio.cli.session import Session
from studio.events import Ended, Measured, Note
from studio.jobs import folder as folders
from studio.jobs.executors.replay import Replay
from tests.examples import finished_run, training

CHECKOUT = Path(__file__).resolve().parents[2]
TRAIN = ("train", "--set", "data.datasets=identity-en")


def run(capsys, *arguments, events=(), client=None):
    """(exit status, stdout, stderr) of one command."""
    with pytest.raises(SystemExit) as ended:
        main(arguments, session=Session(Replay(events, speed=1.0), client))
    told = capsys.readouterr()
    return ended.value.code or 0, told.out, told.err


def subprocess_studio(code_or_arguments, home, **options):
    command = [sys.executable, "-m", "studio", *code_or_arguments]
    if isinstance(code_or_arguments, str):
        command = [sys.executable, "-c", code_or_arguments]
    return subprocess.run(
        command,
        cwd=CHECKOUT,
        env=os.environ | {"STUDIO_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


def test_train_with_json_prints_each_event_and_then_the_outcome(studio_home, capsys):
    status, out, _ = run(capsys, *TRAIN, "--json", events=training())
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [line["loss"] for line in lines if line.get("type") == "step"] == [2.5, 2.0, 1.5]
    assert [line["step"] for line in lines if line.get("type") == "step"] == [1, 2, 3]
    assert lines[-1]["state"] == "finished"
    assert Path(lines[-1]["folder"]) == studio_home.resolve() / "jobs" / lines[-1]["id"]


def test_a_failed_run_exits_with_1_and_says_why_on_both_streams(studio_home, capsys):
    status, out, err = run(capsys, *TRAIN, "--json", events=training("failed", "Out of memory."))
    assert status == 1
    assert json.loads(out.splitlines()[-1])["error"] == "Out of memory."
    assert "Out of memory." in err


def test_a_stopped_run_exits_with_2_and_says_how_to_go_on(studio_home, capsys):
    status, out, _ = run(capsys, *TRAIN, events=training("stopped"))
    assert status == 2
    assert "studio jobs resume identity-en-" in out


def test_train_without_json_keeps_progress_off_stdout(studio_home, capsys):
    status, out, err = run(capsys, *TRAIN, events=training())
    assert status == 0
    assert len(out.splitlines()) == 1
    assert "step 2/3" in err and "I am Miro." in err


def test_detach_returns_before_the_run_ends(studio_home, capsys):
    status, out, _ = run(capsys, *TRAIN, "--detach", "--json", events=training(step_s=5))
    assert status == 0
    assert json.loads(out)["state"] in ("starting", "running")


def test_every_wrong_field_is_named_at_once(studio_home, capsys):
    status, out, err = run(capsys, *TRAIN, "--set", "training.learning_rate=-1", "--set", "method.rnak=8", "--json")
    assert status == 1
    assert set(json.loads(out)) == {"error"}
    assert "training.learning_rate" in err and "Did you mean rank?" in err
    assert "Traceback" not in err


def test_a_spec_file_that_does_not_exist_is_named(studio_home, capsys):
    status, _, err = run(capsys, *TRAIN, "nowhere.yaml")
    assert status == 1
    assert "nowhere.yaml: cannot be read: No such file or directory." in err


def test_a_relative_model_folder_is_made_absolute_for_the_worker(studio_home, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, out, _ = run(capsys, *TRAIN, "--set", "model.name=./mine", "--json", events=training())
    folder = folders.find(json.loads(out.splitlines()[-1])["id"])
    assert folder.read_spec().model.name == str(tmp_path / "mine")


def test_jobs_list_json_is_one_list_with_the_documented_keys(studio_home, capsys):
    finished_run()
    status, out, _ = run(capsys, "jobs", "list", "--json")
    (job,) = json.loads(out)
    assert status == 0
    assert set(job) == {"id", "kind", "state", "folder", "name", "created", "step", "total_steps"}
    assert (job["state"], job["step"], job["total_steps"]) == ("finished", 3, 3)


def test_jobs_list_of_nothing_says_how_to_start_and_prints_an_empty_list_as_json(studio_home, capsys):
    assert "studio train" in run(capsys, "jobs", "list")[2]
    assert json.loads(run(capsys, "jobs", "list", "--json")[1]) == []


def test_jobs_show_prints_scores_and_samples(studio_home, capsys):
    folder = finished_run()
    shown = json.loads(run(capsys, "jobs", "show", folder.id, "--json")[1])
    assert shown["samples"] == [{"step": 3, "prompt": "Who are you?", "answer": "I am Miro."}]
    assert shown["spec"]["data"]["datasets"] == ["identity-en"]
    assert "finished" in run(capsys, "jobs", "show", folder.id)[1]


def test_an_unknown_job_is_met_with_the_nearest_name(studio_home, capsys):
    folder = finished_run()
    status, _, err = run(capsys, "jobs", "show", folder.id[:-1])
    assert status == 1
    assert f"Did you mean '{folder.id}'?" in err


def test_stopping_a_job_that_has_ended_is_an_error(studio_home, capsys):
    folder = finished_run()
    status, _, err = run(capsys, "jobs", "stop", folder.id)
    assert status == 1
    assert "is not running (finished)" in err


def test_resume_shows_only_the_new_attempt(studio_home, capsys):
    run(capsys, *TRAIN, "--json", events=training("stopped", steps=2))
    (folder,) = folders.every()
    status, out, _ = run(capsys, "jobs", "resume", folder.id, "--json", events=training())
    events = [json.loads(line) for line in out.splitlines()[:-1]]
    assert status == 0
    assert {event["attempt"] for event in events} == {2}


def test_logs_prints_the_end_of_the_log(studio_home, capsys):
    folder = finished_run()
    folder.log.write_text("one\ntwo\nthree\n")
    assert run(capsys, "jobs", "logs", folder.id, "--lines", "2")[1] == "two\nthree\n"


def test_control_characters_in_a_log_do_not_reach_the_terminal(studio_home, capsys):
    folder = finished_run()
    folder.log.write_text("\x1b[2J\x1b]0;owned\x07text\n")
    assert run(capsys, "jobs", "logs", folder.id)[1] == "[2J]0;ownedtext\n"


def test_evaluate_passes_its_options_on_and_prints_base_beside_adapter(studio_home, capsys):
    trained = finished_run()
    events = [
        Measured(subject="base", scores={"loss": 3.25}),
        Measured(subject="adapter", scores={"loss": 0.5}),
        Note(text="3 rows skipped"),
        Ended(state="finished"),
    ]
    options = ("--dataset", "other", "--max-samples", "7", "--no-generate", "--set", "batch_size=2")
    status, out, err = run(capsys, "evaluate", trained.id, *options, events=events)
    (folder,) = [folder for folder in folders.every() if folder.read_about()["kind"] == "evaluate"]
    spec = folder.read_spec()
    assert status == 0
    assert (spec.dataset, spec.max_samples, spec.generate, spec.batch_size) == ("other", 7, False, 2)
    assert "loss: base 3.25  adapter 0.5" in out
    assert "note: 3 rows skipped" in err


def test_export_settles_a_relative_target_in_this_shell(studio_home, capsys, tmp_path, monkeypatch):
    trained = finished_run()
    monkeypatch.chdir(tmp_path)
    arguments = ("export", trained.id, "--format", "adapter", "--out", "mine", "--json")
    status, _, _ = run(capsys, *arguments, events=[Ended(state="finished", path=str(tmp_path / "mine"))])
    (folder,) = [folder for folder in folders.every() if folder.read_about()["kind"] == "export"]
    assert status == 0
    assert folder.read_spec().out == str(tmp_path / "mine")


def test_export_to_a_folder_that_exists_is_refused_before_a_worker_starts(studio_home, capsys, tmp_path):
    trained = finished_run()
    status, _, err = run(capsys, "export", trained.id, "--out", str(tmp_path))
    assert status == 1
    assert f"{tmp_path} exists already" in err


def test_export_of_a_checkpoint_that_is_gone_names_those_that_are_kept(studio_home, capsys):
    trained = finished_run(checkpoints=[3])
    status, _, err = run(capsys, "export", trained.id, "--checkpoint", "9")
    assert status == 1
    assert "has no checkpoint at step 9. Kept: 3." in err


def test_ctrl_c_asks_the_job_to_save_and_stop(studio_home):
    code = (
        "import tests.examples as t; from studio.cli import main; from studio.cli.session import Session\n"
        "from studio.jobs.executors.replay import Replay\n"
        f"main([*{TRAIN}, '--json'], session=Session(Replay(t.training(steps=300, step_s=0.05), speed=1.0)))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=CHECKOUT,
        env=os.environ | {"STUDIO_HOME": str(studio_home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = iter(process.stdout.readline, "")
    assert any('"type":"step"' in line for line in lines)
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "saves and stops at its next step" in err
    assert json.loads(rest.splitlines()[-1])["state"] == "stopped"


def test_the_program_exits_with_1_and_no_traceback_for_a_user_error(studio_home):
    done = subprocess_studio(["jobs", "show", "nothing", "--json"], studio_home)
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"error": "Unknown job 'nothing'. Known: none."}
    assert done.stderr == "Unknown job 'nothing'. Known: none.\n"


@pytest.mark.parametrize("arguments", [["--help"], ["jobs", "list"]])
def test_the_program_starts_without_torch_gradio_or_datasets(studio_home, arguments):
    code = (
        "import sys\nfrom studio.cli import main\n"
        f"try: main({arguments})\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'transformers', 'gradio', 'datasets', 'pyarrow') if name in sys.modules])"
    )
    assert subprocess_studio(code, studio_home).stdout.splitlines()[-1] == "[]"


def test_a_spec_is_not_taken_from_a_file_and_a_preset_at_once(studio_home, capsys):
    status, out, err = run(capsys, *TRAIN, "a.yaml", "--preset", "identity")
    assert status == 2
    assert out == "" and "not both" in err
