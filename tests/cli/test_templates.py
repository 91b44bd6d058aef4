"""`studio templates`: what is shown, rendered, checked, kept and refused."""

import json

import pytest

from studio.templates import library
from tests.cli.test_cli import run
from tests.templates.tiny import byte_tokenizer

TURNS = [
    {"role": "system", "content": "Be terse."},
    {"role": "user", "content": "Say <|im_end|>"},
    {"role": "assistant", "content": "No", "reasoning_content": "Hm"},
    {"role": "user", "content": "再见"},
    {"role": "assistant", "content": "Bye 👍🏽"},
]
OWN = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"


@pytest.fixture(autouse=True)
def fresh(studio_home):
    return studio_home


@pytest.fixture
def model(tmp_path):
    """A folder with a tokenizer of bytes and a template of its own."""
    folder = tmp_path / "model"
    folder.mkdir()
    tokenizer = byte_tokenizer("<s>", "</s>", "<|im_start|>", "<|im_end|>")
    tokenizer.backend.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": OWN}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return str(folder)


@pytest.fixture
def talk(tmp_path):
    def write(value=TURNS):
        path = tmp_path / "turns.json"
        path.write_text(json.dumps(value))
        return str(path)

    return write


def rendered(capsys, *arguments):
    status, out, err = run(capsys, "templates", "render", *arguments, "--json")
    assert status == 0, err
    return json.loads(out)


def learned(found):
    return "".join(each["text"] for each in found["tokens"] if each["supervised"])


def test_list_and_show_tell_of_shipped_and_own_ones(capsys):
    library.save("mine", "{# title: My Format #}" + OWN)
    (mine,) = [each for each in json.loads(run(capsys, "templates", "list", "--json")[1]) if each["name"] == "mine"]
    assert (mine["title"], mine["origin"]) == ("My Format", "own")
    assert "mine  " in run(capsys, "templates", "list")[1]
    shown = json.loads(run(capsys, "templates", "show", "chatml", "--json")[1])
    assert shown["origin"] == "shipped" and "generation" in shown["text"] and "generation %}" not in shown["portable"]
    assert run(capsys, "templates", "show", "mine")[1] == "{# title: My Format #}" + OWN + "\n"


def test_a_broken_one_of_ones_own_is_told_beside_the_list(capsys, studio_home):
    (studio_home / "templates").mkdir(parents=True)
    (studio_home / "templates" / "broken.jinja").write_text("{% for %}")
    status, out, err = run(capsys, "templates", "list", "--json")
    assert status == 0 and "broken" in err and "chatml" in out


def test_an_unknown_template_is_met_with_the_nearest_name(capsys):
    assert "Did you mean 'alpaca'?" in run(capsys, "templates", "show", "alpacca")[2]


def test_render_without_a_model_writes_the_text(capsys, talk):
    found = rendered(capsys, "chatml", "--messages", talk(TURNS[:2]), "--generation-prompt")
    assert found["text"].endswith("<|im_start|>user\nSay <|im_end|><|im_end|>\n<|im_start|>assistant\n")


def test_render_with_a_model_tells_of_every_token(capsys, talk, model):
    found = rendered(capsys, "chatml", "--model", model, "--messages", talk())
    assert {"text", "tokens", "stop"} <= found.keys()
    assert all(each.keys() == {"id", "text", "role", "supervised", "reason"} for each in found["tokens"])
    assert "Bye" in learned(found) and "terse" not in learned(found)
    assert {each["role"] for each in found["tokens"]} >= {"system", "user", "assistant", "template"}
    assert "<|im_end|>" in [each["text"] for each in found["stop"]]
    assert all(each.keys() == {"id", "text"} for each in found["stop"])
    assert found["escaped"] == 1


def test_render_follows_the_policy_that_is_given(capsys, talk, model):
    def with_options(*options):
        return rendered(capsys, "chatml", "--model", model, "--messages", talk(), *options)

    assert learned(with_options("--supervise", "last")).startswith("Bye")
    assert learned(with_options("--supervise", "all")).startswith("<|im_start|>")
    cut = with_options("--max-length", "60")
    assert len(cut["tokens"]) == 60 and cut["total"] > 60 and cut["cut"] == "answer"
    assert with_options("--max-length", "60", "--truncation", "drop_row")["tokens"] == []
    assert (
        "Be brief."
        in rendered(capsys, "chatml", "--model", model, "--messages", talk(TURNS[1:]), "--system", "Be brief.")["text"]
    )


def test_thoughts_are_learned_or_not(capsys, talk, model):
    turns = [TURNS[1], {"role": "assistant", "content": "<think>\nHm\n</think>\n\nNo"}]
    arguments = ("chatml", "--model", model, "--messages", talk(turns))
    assert "Hm" in learned(rendered(capsys, *arguments))
    assert "Hm" not in learned(rendered(capsys, *arguments, "--no-learn-thoughts"))


def test_the_prompt_of_an_answer_is_told_token_by_token_and_none_is_learned(capsys, talk, model):
    found = rendered(capsys, "chatml", "--model", model, "--messages", talk(TURNS[:4]), "--generation-prompt")
    assert found["text"].endswith("<|im_start|>assistant\n")
    assert "".join(each["text"] for each in found["tokens"] if each["role"] == "system") == "Be terse."
    assert learned(found) == ""


def test_auto_is_the_models_own_template(capsys, talk, model):
    found = rendered(capsys, "auto", "--model", model, "--messages", talk(TURNS[3:]))
    assert found["text"] == "再见</s>Bye 👍🏽</s>"
    status, _, err = run(capsys, "templates", "render", "auto", "--messages", talk())
    assert status == 1 and "'auto' is the model's own template, so it needs a model" in err


def test_tools_are_read_from_a_file_or_beside_the_messages(capsys, talk, tmp_path):
    tools = [{"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {}}}]
    (tmp_path / "tools.json").write_text(json.dumps(tools))
    turns = [
        TURNS[1],
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]},
        {"role": "tool", "content": "Seen."},
    ]
    apart = rendered(capsys, "qwen", "--messages", talk(turns), "--tools", str(tmp_path / "tools.json"))["text"]
    beside = rendered(capsys, "qwen", "--messages", talk({"messages": turns, "tools": tools}))["text"]
    assert apart == beside and "Looks." in apart and "<tool_call>" in apart


def test_without_json_the_text_the_runs_of_tokens_and_the_counts_are_shown(capsys, talk, model):
    status, out, _ = run(capsys, "templates", "render", "chatml", "--model", model, "--messages", talk())
    assert status == 0
    assert "<|im_start|>user\nSay <|im_end|><|im_end|>" in out
    assert "learned  assistant  answer    B|y|e" in out
    assert "tokens, of which" in out and "kept as text: 1" in out and "The model is stopped at: </s>" in out


def test_control_characters_of_a_conversation_do_not_reach_the_terminal(capsys, talk, model):
    turns = [{"role": "user", "content": "a\x1b[2Jb"}, {"role": "assistant", "content": "[red]c[/red]"}]
    _, out, _ = run(capsys, "templates", "render", "chatml", "--model", model, "--messages", talk(turns))
    assert "\x1b" not in out and "[red]c[/red]" in out


def test_a_file_that_holds_no_messages_is_refused_with_an_example(capsys, tmp_path):
    path = tmp_path / "turns.json"
    for text in ('{"role": "user"}', "[]", "[1]", "not json", "[" * 100_000, '[{"role": "king", "content": "x"}]'):
        path.write_text(text)
        status, _, err = run(capsys, "templates", "render", "chatml", "--messages", str(path))
        assert status == 1
        assert str(path) in err


def test_a_good_template_is_checked_with_a_word_and_a_bad_one_fails(capsys, tmp_path, model):
    assert run(capsys, "templates", "check", "qwen3")[0] == 0
    path = tmp_path / "my draft.jinja"
    path.write_text("{% for m in messages %}{{ m.content | upper }}{% endfor %}")
    status, out, _ = run(capsys, "templates", "check", str(path), "--model", model)
    assert status == 1
    assert "error: Template 'my_draft'" in out and "warning: " in out
    told = json.loads(run(capsys, "templates", "check", str(path), "--json")[1])
    assert {each["level"] for each in told["findings"]} == {"error", "warning"}
    assert told["findings"][0].keys() == {"kind", "level", "text"}


def test_the_models_own_template_is_checked_too(capsys, model):
    assert run(capsys, "templates", "check", "auto", "--model", model)[0] == 0
    assert "needs a model" in run(capsys, "templates", "check", "auto")[2]


def test_a_template_is_added_once_replaced_on_demand_and_removed(capsys, tmp_path):
    path = tmp_path / "my format.jinja"
    path.write_text(OWN)
    status, out, _ = run(capsys, "templates", "add", str(path))
    assert status == 0 and "my_format is added" in out and "prompt" not in out
    assert run(capsys, "templates", "add", str(path))[0] == 1
    assert run(capsys, "templates", "add", str(path), "--replace")[0] == 0
    added = json.loads(run(capsys, "templates", "add", str(path), "--name", "other", "--json")[1])
    assert (added["name"], added["origin"]) == ("other", "own") and added["findings"]
    assert run(capsys, "templates", "remove", "my_format", "--yes")[0] == 0
    assert json.loads(run(capsys, "templates", "remove", "other", "--yes", "--json")[1]) == {"removed": "other"}
    assert not {"my_format", "other"} & set(library.names())


def test_nothing_is_removed_that_is_shipped_unknown_or_not_confirmed(capsys):
    library.save("mine", OWN)
    assert "was not written here" in run(capsys, "templates", "remove", "chatml", "--yes")[2]
    assert "Did you mean 'mine'?" in run(capsys, "templates", "remove", "mne", "--yes")[2]
    assert "add --yes" in run(capsys, "templates", "remove", "mine")[2]
    assert "mine" in library.names()


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"{% for %}", None])
def test_what_is_no_template_is_not_added(capsys, tmp_path, content):
    path = tmp_path / "mine.jinja"
    if content is not None:
        path.write_bytes(content)
    status, _, err = run(capsys, "templates", "add", str(path))
    assert status == 1 and "mine" in err
    assert "mine" not in library.names()
