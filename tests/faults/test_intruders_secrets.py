"""Secrets of the environment: no byte of them in anything that the studio writes, none in a child that needs none."""

import json
import os
import sys
from pathlib import Path

import pytest

from studio import secret, specs
from studio.data import registry
from studio.errors import SpecError
from studio.jobs import control, worker
from studio.jobs import folder as folders
from studio.jobs.executors import local
from studio.templates import confined
from tests.engine.conftest import make
from tests.faults.intruder import until

SECRETS = {
    "HF_TOKEN": "hf_kQwXyZ0123456789abcdefghijklmnop",
    "STUDIO_PASSWORD": "open-sesame-4711-xyz",
    "OPENAI_API_KEY": "sk-0123456789abcdefghij",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCY",
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "GITHUB_PAT": "ghp_0123456789abcdefghijklmnop",
    "MYSQL_PWD": "mysql-secret-4711",
    "DATABASE_URL": "postgres://user:secret-4711@db/x",
    "MY_PASSPHRASE": "correct-horse-battery",
    "SENTRY_DSN": "https://4711abcdef@sentry.example/1",
    "SIGNING_KEY": "signing-key-0123456789",
}
HARMLESS = {"TOKENIZERS_PARALLELISM": "false", "PWD": "/somewhere", "KEYBOARD": "qwertyuiop", "PATH_TO_X": "/x/y/z/a"}


@pytest.fixture
def environment(monkeypatch):
    for name, value in (SECRETS | HARMLESS).items():
        monkeypatch.setenv(name, value)


def found_in(folder: Path) -> list[tuple[str, str]]:
    """Every file below the folder in which a secret stands, plain or as JSON writes it."""
    contents = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return [
        (str(path), name)
        for path, content in contents.items()
        for name, value in SECRETS.items()
        if value.encode() in content
        or json.dumps(value)[1:-1].encode() in content
        or value.encode("utf-16-le") in content
    ]


class Here:
    """Does a job in this process: nothing has to be imported again."""

    def start(self, folder):
        assert worker.main(str(folder.path)) == 0


@pytest.fixture
def here(monkeypatch):
    """What a worker changes in its process is put back."""
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(worker.signal, "signal", lambda *_: None)
    return Here()


def test_f70_no_secret_in_anything_a_training_and_an_export_leave_behind(studio_home, environment, tmp_path, here):
    model = make("llama", tmp_path / "llama")
    rows = [{"instruction": f"{a} + {b} = ?", "output": f"It is {a + b}."} for a in range(5) for b in range(4)]
    (tmp_path / "sums.json").write_text(json.dumps(rows))
    spec = specs.parse(
        specs.TrainSpec,
        {
            "model": {"name": str(model)},
            "data": {"datasets": [registry.add(tmp_path / "sums.json", "sums").name], "max_length": 64},
            "training": {"max_steps": 2, "batch_size": 2, "accumulation": 1, "save_steps": 1, "preflight": False},
            "evaluation": {"prompts": ["1 + 1 = ?"], "max_new_tokens": 2},
        },
    )
    run = control.submit(spec)
    until(lambda: run.is_locked() or run.events.is_file())
    if Path("/proc").is_dir():
        pid = next(event.pid for event in control.follow(run) if event.type == "started")
        seen = Path(f"/proc/{pid}/environ").read_bytes()
        assert [name for name, value in SECRETS.items() if value.encode() in seen] == ["HF_TOKEN"]
    assert control.wait(run).state == "finished"
    exported = control.submit(specs.ExportSpec(run=run.id, format="adapter"), executor=here)
    assert control.wait(exported).state == "finished"
    assert run.record.is_file() and run.log.is_file() and len(list(studio_home.rglob("*"))) > 40
    assert found_in(studio_home) == []


def test_f70_a_secret_that_an_error_quotes_is_hidden_in_events_and_log(
    studio_home, environment, monkeypatch, here, capsys
):
    folder = folders.create("train", specs.TrainSpec(), "x")

    def story(kind):
        def tell(folder, emit, stopping):
            print("asking with", SECRETS["HF_TOKEN"])
            raise RuntimeError(f"401 for {SECRETS['HF_TOKEN']} and {SECRETS['AWS_SECRET_ACCESS_KEY']}")

        return tell

    monkeypatch.setattr(worker, "_story", story)
    assert worker.main(str(folder.path)) == 1
    printed = "".join(capsys.readouterr())
    assert "401 for *** and ***" in printed and "asking with ***" in printed
    assert "401 for *** and ***" in folder.events.read_text()
    assert not any(value in printed for value in SECRETS.values())
    assert found_in(studio_home) == []


@pytest.mark.parametrize(
    "argument", ["hub_token", "api_key", "wandb_api_key", "password", "auth_token", "client_secret"]
)
def test_f70_a_spec_with_a_secret_makes_no_folder(studio_home, argument):
    spec = specs.parse(specs.TrainSpec, {"data": {"datasets": ["identity-en"]}, "trainer": {argument: "abcdefgh1234"}})
    with pytest.raises(SpecError, match=rf"trainer\.{argument}: is a secret") as raised:
        control.submit(spec)
    assert "abcdefgh1234" not in str(raised.value)
    assert not list((studio_home / "jobs").glob("*")) if (studio_home / "jobs").is_dir() else True


def test_f70_a_secret_of_the_environment_anywhere_in_a_spec_makes_no_folder(studio_home, environment):
    for section, name in (("HF_TOKEN", "revision"), ("AWS_SECRET_ACCESS_KEY", "name")):
        model = {"name": "owner/name"} | {name: SECRETS[section]}
        spec = specs.parse(specs.TrainSpec, {"data": {"datasets": ["identity-en"]}, "model": model})
        with pytest.raises(SpecError, match=f"holds the value of {section}") as raised:
            control.submit(spec)
        assert SECRETS[section] not in str(raised.value)
    assert found_in(studio_home) == []


def test_f70_what_goes_on_to_children(environment):
    worker_s = local.environment()
    assert {name for name in SECRETS if name in worker_s} == {"HF_TOKEN"}
    assert all(worker_s[name] == value for name, value in HARMLESS.items() if name != "PWD")
    assert not {*SECRETS} & {*confined.KEPT}


def test_f70_nothing_is_hidden_that_is_no_secret(environment, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "a")  # too short to be looked for in texts
    text = "a token of 7 letters, the password, false, /somewhere, qwertyuiop"
    assert secret.scrubbed(text) == text
    assert {*SECRETS} <= {*secret.values()} and not {*HARMLESS} & {*secret.values()}
    assert not secret.is_secret_argument("eos_token") and not secret.is_secret_argument("include_num_input_tokens_seen")


def test_f70_the_page_tells_no_secret(intruder, environment):
    for route in ("/", "/config", "/gradio_api/info", "/gradio_api/openapi.json"):
        text = intruder.http.get(route).text
        assert not any(value in text for value in SECRETS.values())
    assert os.environ["HF_TOKEN"] not in intruder.call("list_jobs").text
