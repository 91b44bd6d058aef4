"""`studio data`: what is added, shown, written and refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studio.cli import adding, watching
from studio.data import hub
from studio.data.example import Row
from studio.data.intake import Progress
from studio.errors import DataError
from tests.cli.test_cli import CHECKOUT, run

PUBLISHED = CHECKOUT.parent / "shared" / "data"
published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs the published data sets beside the checkout")


def data(capsys, *arguments):
    return run(capsys, "data", *arguments)


def jsonl(path: Path, *rows) -> Path:
    text = "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def mine(studio_home, capsys, tmp_path):
    """Three rows called `mine`, of which the second is faulty."""
    rows = [{"prompt": "1+1?", "completion": "2"}, {"prompt": "2+2?"}, {"prompt": "5+4?", "completion": "9 ☺"}]
    assert data(capsys, "add", str(jsonl(tmp_path / "mine.jsonl", *rows)))[0] == 0
    return "mine"


# --- add


def test_list_json_names_the_shipped_sets(studio_home, capsys):
    names = [each["name"] for each in json.loads(data(capsys, "list", "--json")[1])]
    assert {"identity-en", "identity-zh"} <= set(names)


def test_a_file_is_added_with_its_columns_named(studio_home, capsys, tmp_path):
    path = jsonl(tmp_path / "sums.jsonl", {"q": "1+1?", "a": "2"}, {"q": "2+2?", "a": "4"})
    options = ("--format", "prompt_completion", "--columns", "prompt=q,response=a")
    status, out, err = data(capsys, "add", str(path), *options, "--json")
    added = json.loads(out)
    assert status == 0, err
    assert (added["rows"], added["valid"], added["columns"]) == (2, 2, {"prompt": "q", "response": "a"})


def test_a_faulty_row_is_told_and_the_others_are_added(studio_home, capsys, tmp_path):
    path = jsonl(tmp_path / "rows.jsonl", {"prompt": "a", "completion": "b"}, '{"prompt": "a", "compl')
    status, out, err = data(capsys, "add", str(path))
    assert status == 0
    assert out.startswith("rows: 2 rows, 1 of them valid, format prompt_completion")
    assert "Row 2 of rows.jsonl" in err


def test_add_with_json_lists_the_faults_with_their_places(studio_home, capsys, tmp_path):
    path = jsonl(tmp_path / "rows.jsonl", {"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": 7})
    added = json.loads(data(capsys, "add", str(path), "--json")[1])
    (fault,) = added["faults"]
    assert (fault["file"], fault["row"], fault["field"], added["faults_total"]) == ("rows.jsonl", 2, "completion", 1)


def test_several_files_become_one_dataset_that_must_be_named(studio_home, capsys, tmp_path):
    paths = [str(jsonl(tmp_path / f"{part}.jsonl", {"prompt": part, "completion": part})) for part in "ab"]
    status, _, err = data(capsys, "add", *paths)
    assert status == 1
    assert "--name" in err
    added = json.loads(data(capsys, "add", *paths, "--name", "both", "--json")[1])
    assert (added["rows"], added["title"]) == (2, "a.jsonl (2 files)")


def test_max_rows_takes_the_first_rows(studio_home, capsys, tmp_path):
    path = jsonl(tmp_path / "many.jsonl", *({"prompt": f"{n}?", "completion": str(n)} for n in range(9)))
    assert json.loads(data(capsys, "add", str(path), "--max-rows", "4", "--json")[1])["rows"] == 4


@pytest.mark.parametrize("name", ["../x", "a;rm -rf", "-x", "CON", "x" * 300, "", ".", "café"])
def test_f22_a_name_that_cannot_be_a_file_name_is_refused_with_the_pattern(studio_home, capsys, tmp_path, name):
    path = jsonl(tmp_path / "rows.jsonl", {"prompt": "a", "completion": "b"})
    status, _, err = data(capsys, "add", str(path), "--name", name)
    assert status == 1
    assert "Use 1 to 64 letters, digits, dots, dashes or underscores" in err
    assert not list((studio_home / "datasets").glob("*.json"))


def test_a_file_whose_own_name_will_not_do_asks_for_one(studio_home, capsys, tmp_path):
    path = jsonl(tmp_path / "mes données.jsonl", {"prompt": "a", "completion": "b"})
    assert "Name it with --name." in data(capsys, "add", str(path))[2]


@pytest.mark.parametrize("source", ["http://example.org/x.jsonl", "zip://x.jsonl::y.zip", "file:///etc/passwd"])
def test_f23_addresses_are_refused(studio_home, capsys, source):
    status, out, err = data(capsys, "add", source, "--json")
    assert status == 1
    assert "local files" in err or "address" in err
    assert set(json.loads(out)) == {"error"}
    assert "Traceback" not in err


def test_columns_are_pairs_and_a_path_may_be_one():
    given = ["prompt=instruction,response=instances[0].output", "query=a,b", "history="]
    expected = {"prompt": "instruction", "response": "instances[0].output", "query": "a,b", "history": ""}
    assert adding.pairs(given, "part") == expected
    assert adding.pairs(None, "part") is None
    with pytest.raises(DataError, match="'answer' is not of the form PART=COLUMN"):
        adding.pairs(["answer"], "part")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--subset", "main"), "--subset needs --hub"),
        (("--only", "a"), "--only is for a folder with a dataset_info.json"),
        (("b.jsonl", "--hub"), "--hub takes one id"),
    ],
)
def test_options_that_mean_nothing_together_are_wrong_usage(studio_home, capsys, options, said):
    status, _, err = data(capsys, "add", "a.jsonl", *options)
    assert status == 2
    assert said in err


def test_something_like_a_hub_id_that_is_no_file_is_told_of_the_option(studio_home, capsys):
    assert "If it is an id on the hub, add --hub." in data(capsys, "add", "owner/name")[2]


def test_a_mapping_that_was_guessed_is_said_to_be_one_and_a_chosen_one_is_not(studio_home, capsys, tmp_path):
    path = tmp_path / "e2e.csv"
    path.write_text("mr,ref\nname[Alimentum],The Alimentum is a place.\nname[Bibimbap],Bibimbap is a house.\n")
    assert "is a guess" in data(capsys, "add", str(path), "--name", "guessed")[2]
    options = ("--format", "prompt_completion", "--columns", "prompt=mr,response=ref")
    assert data(capsys, "add", str(path), "--name", "chosen", *options)[2] == ""


def test_a_hub_id_is_added_under_its_own_name_with_the_commit_it_came_from(studio_home, capsys, monkeypatch):
    asked = []

    def rows(repo, **how):
        asked.append((repo, how))
        return iter([Row(1, {"question": "1+1?", "answer": "2"}), Row(2, {"question": "2+2?", "answer": "4"})])

    monkeypatch.setattr(hub, "pinned", lambda repo, revision=None: f"commit of {revision}")
    monkeypatch.setattr(hub, "rows", rows)
    options = ("--hub", "--subset", "main", "--split", "test", "--revision", "v1", "--max-rows", "1")
    status, out, err = data(capsys, "add", "owner/sums", *options, "--json")
    added = json.loads(out)
    assert status == 0, err
    assert asked == [("owner/sums", {"subset": "main", "split": "test", "revision": "commit of v1"})]
    assert (added["name"], added["rows"], added["origin"]["revision"]) == ("sums", 1, "commit of v1")


def test_an_address_is_no_hub_id(studio_home, capsys):
    status, _, err = data(capsys, "add", "https://huggingface.co/datasets/a/b", "--hub")
    assert status == 1
    assert "owner/name" in err


# --- a LLaMA-Factory data folder


@pytest.fixture
def data_folder(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    jsonl(folder / "first.jsonl", *({"instruction": f"{n}?", "input": "", "output": str(n)} for n in range(5)))
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
    (folder / "talks.json").write_text(json.dumps([{"conversations": turns}]))
    entries = {
        "first": {"file_name": "first.jsonl", "num_samples": 3},
        "talks": {"file_name": "talks.json", "formatting": "sharegpt"},
        "away": {"file_name": "../secret.json"},
        "coded": {"script_url": "loader"},
        "remote": {"hf_hub_url": "owner/remote"},
    }
    (folder / "dataset_info.json").write_text(json.dumps(entries))
    return folder


def test_a_data_folder_adds_what_it_can_and_tells_what_it_cannot(studio_home, capsys, data_folder):
    status, out, err = data(capsys, "add", str(data_folder), "--json")
    told = json.loads(out)
    assert status == 0
    assert [(each["name"], each["rows"], each["format"]) for each in told["added"]] == [
        ("first", 3, "alpaca"),
        ("talks", 1, "sharegpt"),
    ]
    assert [each["name"] for each in told["left_out"]] == ["away", "coded", "remote"]
    assert "coded is left out: needs a loading script" in err
    assert "studio data add owner/remote --hub --name remote" in err


def test_one_entry_of_a_data_folder_is_added_by_name(studio_home, capsys, data_folder):
    status, out, _ = data(capsys, "add", str(data_folder / "dataset_info.json"), "--only", "talks", "--prefix", "lf-")
    assert status == 0
    assert out.startswith("lf-talks: 1 row, format sharegpt")


def test_a_data_folder_of_which_nothing_can_be_used_is_an_error(studio_home, capsys, data_folder):
    assert data(capsys, "add", str(data_folder), "--only", "away,coded")[0] == 1
    status, _, err = data(capsys, "add", str(data_folder), "--only", "talk")
    assert status == 1
    assert "Did you mean 'talks'?" in err


# --- progress and Ctrl-C


def test_progress_names_rows_megabytes_and_per_cent():
    assert watching.told(Progress(2_500_000, 10_000_000, 1234)) == "1,234 rows, 2.5 of 10.0 MB (25 %)"
    assert watching.told(Progress(0, 0, 1234)) == "1,234 rows"


def test_ctrl_c_stops_an_addition_with_nothing_registered(studio_home, tmp_path):
    path = tmp_path / "endless.jsonl"
    row = json.dumps({"prompt": "p" * 200, "completion": "c" * 200}) + "\n"
    with path.open("w") as file:
        for _ in range(40):
            file.write(row * 20_000)
    process = subprocess.Popen(
        [sys.executable, "-m", "studio", "data", "add", str(path), "--json"],
        cwd=CHECKOUT,
        env=os.environ | {"STUDIO_HOME": str(studio_home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not list((studio_home / "uploads").glob(".staged-*")):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 2, err
    assert json.loads(out) == {"error": "Stopped. Nothing was added."}
    assert "Traceback" not in err
    assert not list((studio_home / "uploads").iterdir())
    assert not list((studio_home / "datasets").glob("*.json"))


# --- show


def test_show_prints_the_rows_asked_for(studio_home, capsys):
    shown = json.loads(data(capsys, "show", "identity-en", "--start", "2", "--rows", "3", "--json")[1])
    assert [(row["position"], row["row"]) for row in shown["preview"]] == [(2, 3), (3, 4), (4, 5)]
    assert shown["next"] == 5
    assert "row 1 of identity_en.json (position 0): {" in data(capsys, "show", "identity-en")[1]


def test_show_finds_a_text_and_says_where_to_go_on(mine, capsys):
    shown = json.loads(data(capsys, "show", mine, "--find", "5+4", "--json")[1])
    assert [row["position"] for row in shown["preview"]] == [2]
    _, out, err = data(capsys, "show", mine, "--find", "?", "--rows", "1")
    assert out.startswith("row 1 of mine.jsonl")
    assert "--start 1" in err


def test_show_as_learned_prints_turns_and_faults(mine, capsys):
    _, out, _ = data(capsys, "show", mine, "--as-learned")
    assert "  user: 5+4?\n  assistant: 9 ☺\n" in out
    assert "Row 2 of mine.jsonl: completion" in out
    learned = json.loads(data(capsys, "show", mine, "--as-learned", "--json")[1])["preview"]
    assert learned[0]["learned"]["messages"][1] == {"role": "assistant", "content": "2"}
    assert "completion" in learned[1]["learned"]["fault"]


def test_escape_sequences_in_rows_do_not_steer_the_terminal(studio_home, capsys, tmp_path):
    jsonl(tmp_path / "bad.jsonl", {"prompt": "\x1b[2J", "completion": "\x9b31m"})
    data(capsys, "add", str(tmp_path / "bad.jsonl"))
    for options in ((), ("--as-learned",)):
        out = data(capsys, "show", "bad", *options)[1]
        assert "\x1b" not in out and "\x9b" not in out


def test_an_unknown_dataset_is_met_with_the_nearest_name(studio_home, capsys):
    status, _, err = data(capsys, "show", "identity-em")
    assert status == 1
    assert "Did you mean 'identity-en'?" in err


# --- export


def test_export_writes_rows_as_they_were_to_stdout(mine, capsys):
    status, out, _ = data(capsys, "export", mine)
    assert status == 0
    assert json.loads(out.splitlines()[2]) == {"prompt": "5+4?", "completion": "9 ☺"}
    assert len(out.splitlines()) == 3


def test_export_as_trl_leaves_faulty_rows_out_and_says_so(mine, capsys, tmp_path):
    path = tmp_path / "out.jsonl"
    status, out, err = data(capsys, "export", mine, "--as", "trl", "--out", str(path), "--json")
    assert status == 0
    assert json.loads(out) == {"path": str(path), "rows": 2, "left_out": 1}
    assert "Left out: 1 row." in err
    assert json.loads(path.read_text("utf-8").splitlines()[0])["messages"][0] == {"role": "user", "content": "1+1?"}


def test_export_as_faults_gives_place_reason_and_text(mine, capsys):
    (fault,) = (json.loads(line) for line in data(capsys, "export", mine, "--as", "faults")[1].splitlines())
    assert (fault["file"], fault["row"], fault["field"]) == ("mine.jsonl", 2, "completion")
    assert json.loads(fault["text"]) == {"prompt": "2+2?"}


def test_export_never_writes_over_a_file(mine, capsys, tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("mine")
    status, _, err = data(capsys, "export", mine, "--out", str(path))
    assert status == 1
    assert "File exists" in err
    assert path.read_text() == "mine"


# --- rename and remove


def test_rename_and_remove_need_yes_where_nobody_can_be_asked(mine, capsys):
    for command in (("rename", mine, "yours"), ("remove", mine)):
        status, _, err = data(capsys, *command)
        assert status == 1
        assert "--yes" in err
    assert data(capsys, "rename", mine, "yours", "--yes")[1] == "mine is called yours now.\n"
    assert data(capsys, "remove", "yours", "--yes")[1] == "yours is removed.\n"
    assert data(capsys, "show", "yours")[0] == 1


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 2), ("\n", 2)])
def test_on_a_terminal_remove_asks_first(mine, capsys, monkeypatch, answer, status):
    import io

    terminal = io.StringIO(answer)
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", terminal)
    assert data(capsys, "remove", mine)[0] == status
    names = [each["name"] for each in json.loads(data(capsys, "list", "--json")[1])]
    assert (mine in names) == (status == 2)


def test_a_shipped_dataset_cannot_be_removed_or_renamed(studio_home, capsys):
    assert data(capsys, "remove", "identity-en", "--yes")[0] == 1
    assert data(capsys, "rename", "identity-en", "mine", "--yes")[0] == 1


def test_a_new_name_that_will_not_do_is_refused_before_anybody_is_asked(mine, capsys):
    assert "Use 1 to 64 letters" in data(capsys, "rename", mine, "../x")[2]
    assert "Use 1 to 64 letters" in data(capsys, "rename", mine, "--", "-x")[2]


# --- published sets


@published
@pytest.mark.parametrize(
    ("path", "rows", "format"),
    [
        ("classification/sms_spam.tsv", 5574, "classification"),
        ("nlg/e2e_devset.csv", 4672, "prompt_completion"),
        ("preference/kto_en_demo.json", 300, "kto"),
    ],
)
def test_published_sets_are_added_as_they_are(studio_home, capsys, path, rows, format):
    status, out, err = data(capsys, "add", str(PUBLISHED / path), "--json")
    assert status == 0, err
    added = json.loads(out)
    assert (added["rows"], added["valid"], added["format"]) == (rows, rows, format)
