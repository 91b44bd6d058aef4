"""Going on from earlier training: one adapter, several merged into one, whole weights, and what is refused."""

import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from studio.engine.methods import TUNINGS
from studio.engine.start import ALSO, KINDS, gather
from studio.errors import SpecError
from studio.events import Note, Step
from studio.specs import TrainSpec, parse
from tests.engine.conftest import make
from tests.engine.test_train import Run, spec

IDS = torch.tensor([[5, 6, 7, 8, 9]])
STILL = {"max_steps": 1, "learning_rate": 1e-12}
"""A run that changes nothing: what it leaves is what it began with."""


def trained(folder, dataset, place, **sections):
    run = Run(place)
    sections.setdefault("evaluation", {"prompts": []})
    assert run(spec(folder, dataset, **sections)) == run.adapter
    return run


@pytest.fixture(scope="module")
def made():
    """Runs that several tests go on from, by name."""
    return {}


@pytest.fixture
def earlier(made, tiny, dataset, tmp_path_factory):
    """An earlier run of rank 4 and alpha 32 with 6 steps, which nobody may change."""
    if "earlier" not in made:
        place = tmp_path_factory.mktemp("made") / "earlier"
        made["earlier"] = trained(tiny(), dataset, place, model={"dtype": "fp32"})
        made["earlier"].told_loss = made["earlier"].of(Step)[0].loss
    return made["earlier"]


def onward(folder, dataset, names, **sections):
    start = {"adapters": names} | sections.pop("start", {})
    sections = {"model": {"dtype": "fp32"}, "evaluation": {"prompts": []}, **sections}
    return spec(folder, dataset, start=start, **sections)


def go(run, wanted, folders, **options):
    """Run with what the worker would have found under the names."""
    return run(wanted, starts=lambda: folders, **options)


def logits(folder, adapter=None):
    model = AutoModelForCausalLM.from_pretrained(folder)
    model = PeftModel.from_pretrained(model, adapter) if adapter else model
    with torch.no_grad():
        return model.eval()(IDS).logits[:, -IDS.shape[1] :]  # a soft prompt has logits of its own


def test_training_goes_on_in_the_earlier_adapter_and_keeps_its_shape(tiny, dataset, earlier, tmp_path):
    run = Run(tmp_path / "next")
    wanted = onward(tiny(), dataset, ["first"], method={"rank": 64, "init": "pissa"}, training=STILL)
    assert go(run, wanted, [earlier.adapter]) == run.adapter
    assert torch.allclose(logits(tiny(), run.adapter), logits(tiny(), earlier.adapter), atol=1e-6)
    assert any(note.text.startswith("Training goes on in first") for note in run.of(Note))
    assert run.of(Step)[0].loss < earlier.told_loss - 0.3


def test_several_adapters_are_merged_as_peft_merges_them(tiny, dataset, earlier, tmp_path):
    other = trained(tiny(), dataset, tmp_path / "other", model={"dtype": "fp32"}, training={"seed": 7})
    run = Run(tmp_path / "next")
    start = {"weights": [0.7, 0.4]}
    go(run, onward(tiny(), dataset, ["a", "b"], start=start, training=STILL), [earlier.adapter, other.adapter])
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny()), earlier.adapter, "a")
    model.load_adapter(other.adapter, "b")
    model.add_weighted_adapter(["a", "b"], [0.7, 0.4], "both", combination_type="linear")
    model.set_adapter("both")
    with torch.no_grad():
        assert torch.allclose(logits(tiny(), run.adapter), model.eval()(IDS).logits, atol=1e-5)


@pytest.mark.parametrize(
    "combination",
    ["dare_ties", pytest.param("ties", marks=pytest.mark.slow), pytest.param("dare_linear", marks=pytest.mark.slow)],
)
def test_a_run_on_merged_adapters_is_resumed_without_them(tiny, dataset, earlier, tmp_path, combination):
    other = shutil.copytree(earlier.adapter, tmp_path / "other")
    weights = load_file(other / "adapter_model.safetensors")
    save_file({name: -2 * tensor for name, tensor in weights.items()}, other / "adapter_model.safetensors")
    start = {"combination": combination, "density": 0.4}
    wanted = onward(tiny(), dataset, ["a", "b"], start=start, training={"max_steps": 3})
    whole, halved = Run(tmp_path / "whole"), Run(tmp_path / "halved")
    go(whole, wanted, [earlier.adapter, other])
    assert go(halved, wanted, [earlier.adapter, other], stop_at=2) is None
    shutil.rmtree(other)

    def gone():
        raise AssertionError("the earlier runs are asked for again")

    assert halved(wanted, starts=gone) == halved.adapter
    for name, tensor in whole.weights().items():
        assert torch.equal(tensor, halved.weights()[name]), name


@pytest.mark.skipif("full" not in TUNINGS, reason="full fine-tuning is not there")
def test_full_fine_tuning_goes_on_from_whole_weights(tiny, dataset, tmp_path):
    sections = {"method": {"kind": "full"}, "training": {"max_steps": 2, "learning_rate": 1e-3}}
    first = trained(tiny(), dataset, tmp_path / "first", **sections)
    run = Run(tmp_path / "next")
    wanted = onward(tiny(), dataset, ["first"], method={"kind": "full"}, training=STILL)
    go(run, wanted, [first.adapter])
    assert torch.allclose(logits(run.adapter), logits(first.adapter), atol=1e-6)
    assert not torch.allclose(logits(run.adapter), logits(tiny()), atol=1e-3)
    with pytest.raises(SpecError, match=r"first is a whole model\. To put lora on it, export it"):
        go(Run(tmp_path / "lora"), onward(tiny(), dataset, ["first"]), [first.adapter])


def refused(tiny, dataset, tmp_path, folders, **sections):
    names = [f"run{number}" for number in range(len(folders))]
    with pytest.raises(SpecError) as error:
        go(Run(tmp_path / "refused"), onward(tiny(), dataset, names, **sections), folders)
    return [str(fault) for fault in error.value.faults]


def test_f41_an_adapter_of_another_base_is_refused(tiny, dataset, earlier, tmp_path):
    other = make("llama", tmp_path / "base", seed=1)
    with pytest.raises(SpecError, match="start.adapters: first: The adapter .* belongs to"):
        go(Run(tmp_path / "refused"), onward(other, dataset, ["first"]), [earlier.adapter])


def test_f43_to_f47_damaged_adapters_are_named_together_before_anything_loads(tiny, dataset, earlier, tmp_path):
    def copy(name):
        return shutil.copytree(earlier.adapter, tmp_path / name)

    empty = tmp_path / "empty"
    empty.mkdir()
    pickled, cut, numberless = copy("pickled"), copy("cut"), copy("numberless")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    (cut / "adapter_model.safetensors").write_bytes((cut / "adapter_model.safetensors").read_bytes()[:-100])
    weights = load_file(numberless / "adapter_model.safetensors")
    weights[next(iter(weights))][0] = float("nan")
    save_file(weights, numberless / "adapter_model.safetensors")
    said = refused(tiny, dataset, tmp_path, [empty, pickled, cut, numberless])
    assert [each.split(": ")[1] for each in said] == ["run0", "run1", "run2", "run3"]
    for text, wanted in zip(said, ("no adapter", "can run code", "cut short", "not numbers"), strict=True):
        assert wanted in text


def test_f45_an_adapter_with_a_missing_tensor_is_refused(tiny, dataset, earlier, tmp_path):
    lacking = shutil.copytree(earlier.adapter, tmp_path / "lacking")
    weights = load_file(lacking / "adapter_model.safetensors")
    weights.pop(next(iter(weights)))
    save_file(weights, lacking / "adapter_model.safetensors")
    with pytest.raises(Exception, match="first: .* does not fit this base: it lacks 1 tensors"):
        go(Run(tmp_path / "refused"), onward(tiny(), dataset, ["first"]), [lacking])


def test_what_cannot_go_on_together_is_refused_with_the_remedy(tiny, dataset, earlier, tmp_path):
    wide = trained(tiny(), dataset, tmp_path / "wide", method={"rank": 8}, training=STILL)
    (said,) = refused(tiny, dataset, tmp_path, [earlier.adapter, wide.adapter])
    assert "same rank, but it is run0: 4, run1: 8" in said
    shutil.rmtree(tmp_path / "refused")
    (said,) = refused(tiny, dataset, tmp_path, [earlier.adapter], template={"name": "llama3"})
    assert said.startswith("template.name: is llama3, but run0 was trained with")
    shutil.rmtree(tmp_path / "refused")
    (said,) = refused(tiny, dataset, tmp_path, [earlier.adapter], method={"kind": "loha", "rank": 4})
    assert said == "method.kind: is loha, but run0 is made by lora. Set it to lora."


def test_without_a_start_nothing_is_copied(tmp_path):
    assert gather([], lambda: [tmp_path], tmp_path / "start") == [] and not (tmp_path / "start").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    sorted({*KINDS.values(), *ALSO}),
)
def test_a_run_of_each_kind_goes_on_where_it_was(tiny, dataset, tmp_path, kind):
    if kind not in TUNINGS:
        pytest.skip(f"{kind} is not there")
    base, method = tiny("qwen2" if kind == "bitfit" else "llama"), {"kind": kind}
    sections = {"model": {"dtype": "fp32"}, "method": method}
    first = trained(base, dataset, tmp_path / "first", training={"max_steps": 3}, **sections)
    run = Run(tmp_path / "next")
    wanted = parse(TrainSpec, onward(base, dataset, ["first"], training=STILL, **sections).model_dump())
    go(run, wanted, [first.adapter])
    if kind == "full":
        assert torch.allclose(logits(run.adapter), logits(first.adapter), atol=1e-5)
    else:
        assert torch.allclose(logits(base, run.adapter), logits(base, first.adapter), atol=1e-5)
        assert not torch.allclose(logits(base, run.adapter), logits(base), atol=1e-6)
