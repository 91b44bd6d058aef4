"""`studio data`, `templates` and `presets`: what is shown, and what is refused."""

import json

from tests.cli.test_cli import run
from tests.examples import training


def test_data_list_json_names_the_shipped_sets(studio_home, capsys):
    names = [each["name"] for each in json.loads(run(capsys, "data", "list", "--json")[1])]
    assert {"identity-en", "identity-zh"} <= set(names)


def test_data_show_prints_the_rows_asked_for(studio_home, capsys):
    shown = json.loads(run(capsys, "data", "show", "identity-en", "--start", "2", "--count", "3", "--json")[1])
    assert [row["row"] for row in shown["preview"]] == [3, 4, 5]
    assert "row 1: {" in run(capsys, "data", "show", "identity-en")[1]


def test_a_file_is_added_shown_and_removed(studio_home, capsys, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"q": "1+1?", "a": "2"}\n{"q": "2+2?", "a": "4"}\n')
    options = ("--format", "prompt_completion", "--column", "prompt=q", "--column", "response=a")
    status, out, err = run(capsys, "data", "add", str(path), *options, "--json")
    assert status == 0, err
    assert json.loads(out)["rows"] == 2
    assert run(capsys, "data", "remove", "mine")[1] == "mine is removed.\n"
    assert run(capsys, "data", "show", "mine")[0] == 1


def test_a_column_without_a_role_is_refused(studio_home, capsys, tmp_path):
    status, _, err = run(capsys, "data", "add", str(tmp_path / "x.csv"), "--column", "answer")
    assert status == 1
    assert "'answer' is not of the form ROLE=COLUMN" in err


def test_a_shipped_dataset_cannot_be_removed(studio_home, capsys):
    assert run(capsys, "data", "remove", "identity-en")[0] == 1


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
