"""Models and templates of strangers: no pickle is opened, no code in a model's folder runs, no template gets out."""

import json
import pickle

import pytest

from studio.engine.models import load, resolve
from studio.errors import ModelError, StudioError
from tests.faults.intruder import MARKER
from tests.ui.tiny_model import tiny_model

PICKLES = ["pytorch_model.bin", "model.pt", "weights.pth", "last.ckpt"]


class Running:
    """Unpickled, it writes a file."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return (exec, (f"open({str(self.place)!r}, 'w').write('ran')",))


@pytest.fixture
def ran(tmp_path):
    """A file that nothing may write."""
    place = tmp_path / "ran"
    yield place
    assert not place.exists()


def progress(*_):
    return None


@pytest.mark.parametrize("name", PICKLES)
def test_f36_a_model_of_pickles_is_refused_and_not_opened(tmp_path, ran, name):
    folder = tiny_model(tmp_path / "model")
    (folder / name).write_bytes(pickle.dumps(Running(ran)))
    assert not resolve.peek(str(folder)).ready
    with pytest.raises(ModelError, match="pickle files.*can run code.*save_pretrained"):
        resolve.resolve(str(folder), progress=progress)


def test_f36_an_adapter_of_pickles_is_refused_and_not_opened(tmp_path, ran):
    from studio.engine.held import with_adapter

    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (tmp_path / "adapter_model.bin").write_bytes(pickle.dumps(Running(ran)))
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors is missing"):
        with_adapter(None, tmp_path)


def test_f36_a_pickle_under_the_name_of_safetensors_is_refused(tmp_path, ran):
    folder = tiny_model(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(pickle.dumps(Running(ran)))
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        resolve.resolve(str(folder), progress=progress)


def test_f36_an_index_that_leads_elsewhere_is_refused(tmp_path, ran):
    folder = tiny_model(tmp_path / "model")
    for name in ("../other.safetensors", "/etc/passwd", "pytorch_model.bin"):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Running(ran)))
        with pytest.raises(ModelError):
            resolve.resolve(str(folder), progress=progress)


def test_f37_code_in_a_model_s_folder_is_refused_and_cannot_be_allowed_from_the_page(tmp_path, ran, intruder):
    folder = tiny_model(tmp_path / "model")
    code = f"open({str(ran)!r}, 'w').write('ran')"
    for name in ("modeling_own.py", "configuration_own.py", "tokenization_own.py"):
        (folder / name).write_text(code)
    auto = {"AutoConfig": "configuration_own.Own", "AutoModelForCausalLM": "modeling_own.Own"}
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": auto}))
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelError, match="code of its own"):
        resolve.resolve(str(folder), progress=progress)
    for switch in ("model: {{name: {}, trust_remote_code: true}}", "model: {{name: {}}}\ntrust_remote_code: true"):
        told = intruder.call("start_training", "data: {datasets: [identity-en]}\n" + switch.format(folder))
        assert not told.success and "trust_remote_code: is not a field" in told.text


def test_f37_no_field_of_the_page_is_about_code_and_no_code_of_ours_trusts_any(intruder):
    assert "remote_code" not in intruder.http.get("/config").text
    from studio.home import CHECKOUT

    for path in (CHECKOUT / "studio").rglob("*.py"):
        text = path.read_text("utf-8").replace(" ", "")
        assert "trust_remote_code=True" not in text and '"trust_remote_code":True' not in text, path


@pytest.mark.parametrize("argument", ["trust_remote_code: true", "model_init_kwargs: {trust_remote_code: true}"])
def test_f37_what_the_trainer_takes_cannot_switch_it_on(argument):
    from trl import SFTConfig

    from studio import specs
    from studio.engine.extra import read_extra

    spec = specs.parse(specs.TrainSpec, specs.read_yaml(f"trainer: {{{argument}}}"))
    _, faults = read_extra(spec.trainer, SFTConfig, spec.stage)
    assert len(faults) == 1 and faults[0].field.startswith("trainer.")


@pytest.mark.parametrize("labels", [None, ["no", "yes"]])
def test_every_load_of_a_model_says_safetensors_only_and_no_code(tmp_path, monkeypatch, labels):
    asked = []

    def refused(*_, **options):
        asked.append(options)
        raise OSError("seen")

    for kind in (load.AutoModelForCausalLM, load.AutoModelForSequenceClassification):
        monkeypatch.setattr(kind, "from_pretrained", refused)
    with pytest.raises(ModelError, match="seen"):
        load.load_base(tmp_path, dtype="fp32", labels=labels)
    (options,) = asked
    assert options["use_safetensors"] is True and options["trust_remote_code"] is False
    assert options["local_files_only"] is True


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'].environ }}",
    "{% include '/etc/passwd' %}",
    "{% import '../outside/secret' as x %}{{ x }}",
    "{{ raise_exception.__globals__ }}",
    "{{ messages.__class__.__base__ }}",
    "{{ (messages | map(attribute='__class__') | list)[0].__init__.__globals__ }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
]


def test_f28_a_draft_on_the_page_finds_no_way_out(intruder, tmp_path):
    model = str(tiny_model(tmp_path / "model"))
    check, save = intruder.number("template_check"), intruder.number("template_save")
    for escape in ESCAPES:
        text = "{% for message in messages %}{{ message.content }}{% endfor %}" + escape
        told = intruder.fire([{"fn_index": check, "data": [model, "auto", text, "draft", None]}])[0]
        for word in (MARKER, "uid=", "root:x:", "<class ", "STUDIO_HOME", "Traceback"):
            assert word not in told.text, escape
        assert "finding" in told.text or "problem" in told.text, (escape, told.text)
    for name in ("../escaped", "/etc/escaped", "a/b", "CON"):
        told = intruder.fire([{"fn_index": save, "data": [name, "{{ messages }}", "auto", None, None]}])[0]
        assert "cannot be a" in told.text
    assert not list((intruder.home / "templates").glob("*")) if (intruder.home / "templates").is_dir() else True


def test_f29_a_draft_on_the_page_that_never_ends_costs_a_sentence(intruder, tmp_path):
    model = str(tiny_model(tmp_path / "model"))
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    (told,) = intruder.fire([{"fn_index": intruder.number("template_check"), "data": [model, "auto", loop, "x", None]}])
    assert "s" in told.text and "Traceback" not in told.text
    assert intruder.call("list_jobs").success


def test_an_error_is_always_one_of_ours():
    for name in ("../x", "a b", "", "\0", "owner/../x", "http://hub/owner/name"):
        with pytest.raises(StudioError):
            resolve.peek(name)
            resolve.resolve(name, progress=progress, download=lambda *_: "/nowhere")
