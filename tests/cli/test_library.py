"""`studio templates` and `presets`: what is shown, and what is refused."""

import json

from tests.cli.test_cli import run
from tests.examples import training


def test_render_writes_a_conversation_as_the_template_says(studio_home, capsys, tmp_path):
    path = tmp_path / "turns.json"
    path.write_text(json.dumps([{"role": "user", "content": "Hi"}]))
    _, out, _ = run(capsys, "templates", "render", "chatml", "--messages", str(path), "--generation-prompt", "--json")
    assert json.loads(out)["text"].endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_a_file_that_holds_no_messages_is_refused_with_an_example(studio_home, capsys, tmp_path):
    path = tmp_path / "turns.json"
    for text in ('{"role": "user"}', "[]", "[1]", "not json", "[" * 100_000):
        path.write_text(text)
        status, _, err = run(capsys, "templates", "render", "chatml", "--messages", str(path))
        assert status == 1
        assert str(path) in err


def test_an_unknown_template_is_met_with_the_nearest_name(studio_home, capsys):
    assert "Did you mean 'alpaca'?" in run(capsys, "templates", "show", "alpacca")[2]


def test_templates_list_and_show(studio_home, capsys):
    names = [each["name"] for each in json.loads(run(capsys, "templates", "list", "--json")[1])]
    assert "chatml" in names
    assert json.loads(run(capsys, "templates", "show", "chatml", "--json")[1])["text"]


def test_a_preset_is_copied_once_and_never_over_a_file_that_exists(studio_home, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "identity" in json.loads(run(capsys, "presets", "list", "--json")[1])
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
