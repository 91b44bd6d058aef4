"""`studio presets`: what is listed, copied and trained with."""

import json

from tests.cli.test_cli import run
from tests.examples import training


def test_a_preset_is_copied_once_and_never_over_a_file_that_exists(studio_home, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = {each["preset"]: each["description"] for each in json.loads(run(capsys, "presets", "list", "--json")[1])}
    assert listed["identity"].startswith("Teach the model its name")
    assert listed["identity"] in run(capsys, "presets", "list")[1]
    assert run(capsys, "presets", "copy", "identity")[0] == 0
    assert "datasets" in (tmp_path / "identity.yaml").read_text()
    status, _, err = run(capsys, "presets", "copy", "identity")
    assert status == 1
    assert "identity.yaml cannot be written: File exists" in err


def test_train_takes_a_preset_with_changes(studio_home, capsys):
    arguments = ("train", "--preset", "identity", "--set", "training.max_steps=3", "--json")
    status, out, _ = run(capsys, *arguments, events=training())
    assert status == 0
    assert json.loads(out.splitlines()[-1])["id"].startswith("identity-")
