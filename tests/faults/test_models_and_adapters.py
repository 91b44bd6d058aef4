"""The faults of models and adapters, by their number in the fault matrix. The libraries load most of these in silence.

Each adapter is tried at all four doors: training that goes on from it, chat, evaluation and export.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from studio.engine.chat import Chat
from studio.engine.evaluation.answers import evaluate
from studio.engine.export import export
from studio.engine.models import bundled, resolve
from studio.engine.models.load import RECORD, load_base, load_tokenizer
from studio.engine.models.resize import main as resize
from studio.engine.models.resolve import identity
from studio.errors import ModelError, StudioError
from studio.events import Phase, Step
from studio.specs import EvaluateSpec, ExportSpec, ModelSpec, QuantizationSpec
from tests.engine.conftest import VOCABULARY, make
from tests.engine.test_train import Run, spec

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
SAFE = "model.safetensors"


@pytest.fixture
def copied(tiny, tmp_path):
    """A copy of the tiny model that a test may damage."""
    return Path(shutil.copytree(tiny(), tmp_path / "base"))


def contents(folder):
    """Every file below a folder by its hash."""
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def phases(told):
    return [event.name for event in told if isinstance(event, Phase)]


def refused_base(folder, dataset, place, *, loads=False):
    """What a run and a chat say of a base, which must be the same."""
    run = Run(place / "refused")
    with pytest.raises(StudioError) as in_training:
        run(spec(folder, dataset))
    assert ("load" in phases(run.told)) == loads and not run.of(Step)
    assert not run.adapter.exists() and not run.checkpoints.exists()
    with pytest.raises(ModelError) as in_chat:
        Chat(ModelSpec(name=str(folder), dtype="fp32"), QuantizationSpec(kind="none"), lambda *_: None)
    assert str(in_chat.value) == str(in_training.value)
    return str(in_chat.value)


# --- bases


def test_f33_a_missing_tokenizer_is_named_before_weights_load(copied, dataset, tmp_path):
    (copied / "tokenizer.json").unlink()
    said = refused_base(copied, dataset, tmp_path)
    assert str(copied) in said and "tokenizer.json is missing" in said and "AutoTokenizer and save it here" in said


def test_f33_a_broken_tokenizer_is_named_before_weights_load(copied, dataset, tmp_path):
    (copied / "tokenizer.json").write_text("{}")
    assert f"{copied / 'tokenizer.json'} cannot be read" in refused_base(copied, dataset, tmp_path)


def test_f34_a_missing_shard_is_named(tiny, copied, dataset, tmp_path):
    AutoModelForCausalLM.from_pretrained(tiny()).save_pretrained(copied, max_shard_size="1MB")
    (copied / SAFE).unlink(missing_ok=True)
    gone = sorted(copied.glob("model-*.safetensors"))[1]
    gone.unlink()
    said = refused_base(copied, dataset, tmp_path)
    assert f"Weights named in model.safetensors.index.json are missing: {gone.name}" in said


def without(folder, name):
    tensors = load_file(folder / SAFE)
    del tensors[name]
    save_file(tensors, folder / SAFE, metadata={"format": "pt"})


@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight"])
def test_f35_a_missing_tensor_is_named(copied, dataset, tmp_path, name):
    without(copied, name)
    said = refused_base(copied, dataset, tmp_path, loads=True)
    assert said == f"The weights in {copied} lack 1 tensors, such as {name}. Get them again."


def test_f35_one_that_is_missing_below_the_head_of_a_classifier_is_named_and_the_head_is_not(copied):
    load_base(copied, dtype="fp32", labels=["ham", "spam"])
    without(copied, "model.layers.0.self_attn.q_proj.weight")
    with pytest.raises(ModelError, match=r"lack 1 tensors, such as model\.layers\.0\.self_attn\.q_proj\.weight"):
        load_base(copied, dtype="fp32", labels=["ham", "spam"])


def test_f36_pickled_weights_are_refused_with_how_to_convert_them(copied, dataset, tmp_path):
    (copied / SAFE).rename(copied / "pytorch_model.bin")
    said = refused_base(copied, dataset, tmp_path)
    assert "pickle files (pytorch_model.bin), which can run code" in said and "save_pretrained" in said


def test_f37_code_of_its_own_is_refused_and_never_run(copied, dataset, tmp_path):
    config = json.loads((copied / "config.json").read_text())
    config |= {"model_type": "my_own", "auto_map": {"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Mine"}}
    (copied / "config.json").write_text(json.dumps(config))
    (copied / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    said = refused_base(copied, dataset, tmp_path)
    assert (
        "names code of its own (auto_map) for the type 'my_own'" in said
        and "whatever you can do on this machine" in said
    )
    assert not (tmp_path / "ran").exists()


OWN = """from transformers import LlamaConfig, LlamaForCausalLM
class MineConfig(LlamaConfig):
    model_type = "my_own"
class Mine(LlamaForCausalLM):
    config_class = MineConfig
"""


def test_f37_only_the_environment_allows_it_and_only_for_the_folder_that_it_names(copied, dataset, run, monkeypatch):
    config = json.loads((copied / "config.json").read_text())
    config |= {"model_type": "my_own", "auto_map": {"AutoConfig": "own.MineConfig", "AutoModelForCausalLM": "own.Mine"}}
    (copied / "config.json").write_text(json.dumps(config))
    (copied / "own.py").write_text(OWN)
    monkeypatch.setenv("STUDIO_TRUSTED_MODELS", str(copied.parent))
    with pytest.raises(ModelError, match=r"STUDIO_TRUSTED_MODELS=FOLDER"):
        run(spec(copied, dataset))
    monkeypatch.setenv("STUDIO_TRUSTED_MODELS", os.pathsep.join(["/somewhere/else", str(copied)]))
    assert run(spec(copied, dataset, training={"max_steps": 1})) == run.adapter


@pytest.mark.parametrize("kept", [0, 7, 3000, -1])
def test_f38_truncated_weights_are_named(copied, dataset, tmp_path, kept):
    (copied / SAFE).write_bytes((copied / SAFE).read_bytes()[:kept])
    assert f"{copied / SAFE} is damaged or cut short" in refused_base(copied, dataset, tmp_path)


def test_f38_a_flipped_bit_is_found_by_the_manifest_of_the_bundled_model(copied, studio_home, monkeypatch):
    files = {path.name: path for path in copied.iterdir()}
    listed = {
        name: {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for name, path in files.items()
    }
    (copied / bundled.MANIFEST).write_text(json.dumps({"layout": bundled.LAYOUT, "files": listed}))
    place = bundled.folder()
    shutil.copytree(copied, place)
    assert resolve.resolve(bundled.BUNDLED_MODEL, progress=lambda *_: None) == place
    weights = bytearray((place / SAFE).read_bytes())
    weights[-1000] ^= 4
    (place / SAFE).write_bytes(weights)
    monkeypatch.setenv("STUDIO_WHEELS", str(copied))

    def unreachable(*_):
        raise ModelError("The model cannot be downloaded.")

    monkeypatch.setattr(bundled, "_download", unreachable)
    with pytest.raises(ModelError, match="cannot be downloaded"):
        resolve.resolve(bundled.BUNDLED_MODEL, progress=lambda *_: None)


def test_f39_a_tokenizer_larger_than_the_embedding_is_named_and_a_resize_is_offered(copied, dataset, tmp_path, capsys):
    tokenizer = load_tokenizer(copied)[1].backend
    tokenizer.add_tokens(["⟨new⟩", "⟨newer⟩"])
    tokenizer.save(str(copied / "tokenizer.json"))
    said = refused_base(copied, dataset, tmp_path)
    assert f"tokens up to number {VOCABULARY + 1}, such as '⟨new⟩'" in said
    assert f"embeddings for {VOCABULARY} only" in said
    offered = said.rpartition("python -m studio.engine.models.resize ")[2].replace("NEW_FOLDER", str(tmp_path / "new"))
    assert resize(offered.split()) == 0 and f"embeddings for {VOCABULARY + 2} tokens" in capsys.readouterr().out
    run = Run(tmp_path / "run")
    assert run(spec(tmp_path / "new", dataset, training={"max_steps": 1, "accumulation": 1})) == run.adapter
    before, after = load_file(copied / SAFE), load_file(tmp_path / "new" / SAFE)
    assert torch.equal(before["lm_head.weight"], after["lm_head.weight"][:VOCABULARY])
    assert resize(offered.split()) == 1 and "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("offline", [True, False])
def test_f40_without_the_hub_a_local_and_the_bundled_model_are_suggested(dataset, run, monkeypatch, tmp_path, offline):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    why = "is not in the cache, and HF_HUB_OFFLINE forbids" if offline else "cannot be reached"
    with pytest.raises(ModelError, match=why) as refused:
        run(spec("owner/name", dataset))
    assert str(refused.value).startswith("owner/name ") and "\n" not in str(refused.value)
    assert "smollm2-135m-instruct needs no hub, and neither does a model's folder" in str(refused.value)
    assert "load" not in phases(run.told)


# --- adapters


@pytest.fixture(scope="module")
def adapters(tiny, tmp_path_factory):
    """A LoRA of rank 4 and a soft prompt for the tiny model, as somebody else left them: without a record."""
    place = tmp_path_factory.mktemp("adapters")
    configs = {
        "lora": LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"),
        "prompt": PromptTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM"),
    }
    for name, config in configs.items():
        torch.manual_seed(1)
        get_peft_model(AutoModelForCausalLM.from_pretrained(tiny()), config).save_pretrained(place / name)
    return place


@pytest.fixture
def lora(adapters, tmp_path):
    """A copy that a test may damage."""
    return Path(shutil.copytree(adapters / "lora", tmp_path / "lora"))


@pytest.fixture
def doors(tiny, dataset, tmp_path, no_network):
    """doors(adapter) -> what training, chat, evaluation and both exports say of it; all of them refuse."""

    def ask(adapter, base=None):
        trained = spec(base or tiny(), dataset, data={"validation_share": 0.25})
        onward = trained.model_copy(update={"start": trained.start.model_copy(update={"adapters": ("first",)})})
        run, chat = Run(tmp_path / "onward"), None
        before, said, told = contents(adapter), {}, []
        chat = Chat(trained.model, QuantizationSpec(kind="none"), lambda *_: None)

        def exported(kind):
            wanted = ExportSpec(run="r", format=kind)
            return export(
                wanted,
                trained=trained,
                adapter=adapter,
                target=tmp_path / "exports" / kind,
                emit=told.append,
                stopping=lambda: False,
            )

        def evaluated():
            return evaluate(
                EvaluateSpec(run="r"),
                trained=trained,
                adapter=adapter,
                predictions=tmp_path / "predictions.jsonl",
                emit=told.append,
                stopping=lambda: False,
            )

        for door, enter in {
            "training": lambda: run(onward, starts=lambda: [adapter]),
            "chat": lambda: chat.add("bad", adapter, trained),
            "evaluation": evaluated,
            "export of the adapter": lambda: exported("adapter"),
            "export merged": lambda: exported("merged"),
        }.items():
            with pytest.raises(StudioError) as refused:
                enter()
            said[door] = str(refused.value)
        assert chat.names == ["base"] and not run.adapter.exists() and not run.of(Step)
        assert "load" not in phases(told + run.told), "it is told before anything loads"
        assert not any((tmp_path / "exports").iterdir()) and not (tmp_path / "predictions.jsonl").exists()
        assert contents(adapter) == before
        assert said["training"].startswith("start.adapters: first: ")
        return said

    return ask


def assert_all_say(said, *words):
    for door, text in said.items():
        for word in words:
            assert word in text, (door, word, text)
        assert "\n" not in text and "Error" not in text


def test_f41_an_adapter_of_another_base_with_the_same_shapes_is_refused_by_the_recorded_base(doors, lora, tmp_path):
    other = make("llama", tmp_path / "other", seed=9)
    (lora / RECORD).write_text(json.dumps({"base": "other-llama", "identity": identity(other)}))
    assert_all_say(doors(lora), "belongs to other-llama", "Use the base it was trained on, or train again.")


def test_f42_an_adapter_of_another_width_is_refused_with_the_shapes(doors, lora, tmp_path):
    wide = make("llama", tmp_path / "wide", hidden=128)
    assert_all_say(
        doors(lora, base=wide),
        "lora_A.weight has shape [4, 128], but on this base [4, 256]",
        "Use the base it was trained on.",
    )


def edit(lora, **values):
    config = json.loads((lora / CONFIG).read_text())
    (lora / CONFIG).write_text(json.dumps(config | values))


def test_f43_a_rank_that_is_not_its_configs_is_refused(doors, lora):
    edit(lora, r=8)
    assert_all_say(doors(lora), "has rank 4", f"by its {CONFIG} rank 8")


def test_f44_absent_target_modules_are_refused_with_the_nearest_names(doors, lora):
    edit(lora, target_modules=["q_porj", "dwn_proj"])
    assert_all_say(doors(lora), "names dwn_proj, q_porj, and the base has no such layers", "down_proj, q_proj")


def change(folder, how):
    tensors = load_file(folder / WEIGHTS)
    how(tensors)
    save_file(tensors, folder / WEIGHTS)


def test_f45_a_missing_tensor_is_refused(doors, lora):
    change(lora, lambda tensors: tensors.pop(min(tensors)))
    assert_all_say(doors(lora), "it lacks 1 tensors, such as base_model.model.model.layers.0.", "lora_A.weight")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_f46_values_that_are_no_numbers_are_refused(doors, lora, number):
    change(lora, lambda tensors: tensors[max(tensors)][0].fill_(number))
    assert_all_say(doors(lora), "lora_B.weight holds values that are not numbers")


def test_f46_so_they_are_in_a_soft_prompt(doors, adapters, tmp_path):
    prompt = Path(shutil.copytree(adapters / "prompt", tmp_path / "prompt"))
    change(prompt, lambda tensors: tensors["prompt_embeddings"][2].fill_(float("nan")))
    assert_all_say(doors(prompt), "prompt_embeddings holds values that are not numbers")


@pytest.mark.parametrize("gone", [WEIGHTS, CONFIG])
def test_f47_without_config_or_weights_a_local_message_is_given_not_the_hubs(doors, lora, gone):
    (lora / gone).unlink()
    assert_all_say(doors(lora), f"{gone} is missing")


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_f47_a_file_that_is_cut_short_is_named(doors, lora, name):
    (lora / name).write_bytes((lora / name).read_bytes()[:-40])
    for text in doors(lora).values():
        assert name in text and ("cut short" in text or "cannot be read" in text)


def test_f45_the_head_of_a_classifier_belongs_to_its_adapter(tiny, tmp_path):
    from studio.engine.fitting import check_adapter

    model = AutoModelForSequenceClassification.from_pretrained(tiny(), num_labels=2)
    config = LoraConfig(r=4, target_modules=["q_proj"], task_type="SEQ_CLS")
    get_peft_model(model, config).save_pretrained(tmp_path / "sorted")
    record = {"base": "tiny", "identity": identity(tiny()), "labels": ["ham", "spam"]}
    (tmp_path / "sorted" / RECORD).write_text(json.dumps(record))
    check_adapter(tmp_path / "sorted", tiny())
    change(tmp_path / "sorted", lambda tensors: tensors.pop("base_model.model.score.weight"))
    with pytest.raises(ModelError, match=r"lacks 1 tensors, such as base_model\.model\.score\.weight"):
        check_adapter(tmp_path / "sorted", tiny())
