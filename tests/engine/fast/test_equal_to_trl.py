"""The fast path gives the losses and gradients of trl's own step, with padded rows, family by family."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.engine.fast.conftest import spec_of

FAMILIES = ["llama", "qwen2", "qwen3", "gpt2", "gemma", "mistral"]


def without_dropout(folder, place):
    """GPT-2's configuration drops by default, and no two paths draw alike."""
    shutil.copytree(folder, place)
    config = json.loads((place / "config.json").read_text())
    rates = {name: 0.0 for name in ("attn_pdrop", "resid_pdrop", "embd_pdrop") if name in config}
    (place / "config.json").write_text(json.dumps(config | rates))
    return place


def off_by(one, other):
    """The largest difference of two gradients with one name, as a share of its norm."""
    assert one.keys() == other.keys()
    return max(float((one[name] - grad).norm() / grad.norm().clamp(min=1e-12)) for name, grad in other.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_gradient_equals_that_of_trl(family, tiny, mixed_lengths, run, tmp_path):
    spec = spec_of(without_dropout(tiny(family), tmp_path / "base"), mixed_lengths)
    ours, theirs = run(spec), run(spec, fast=False)
    assert ours.plan.path == "fast" and theirs.plan.path == "trl"
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-6)
    # before the first step B is zero, and so is the gradient of A
    assert all(off_by(*pair) < 1e-5 for pair in zip(ours.gradients[1:], theirs.gradients[1:], strict=True))


# weights stay in 16 bits, or do not
@pytest.mark.parametrize("changes", [{}, {"dora": True}, {"modules_to_save": ["up_proj"]}])
def test_weights_that_stay_in_the_16_bits_of_their_file_change_nothing(changes, tiny, mixed_lengths, run, tmp_path):
    shutil.copytree(tiny("llama"), tmp_path / "half")
    AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    spec = spec_of(tmp_path / "half", mixed_lengths, method={"kind": "lora", "rank": 4, **changes})
    ours, theirs = run(spec), run(spec, fast=False)
    assert ours.plan.path == "fast" and theirs.plan.path == "trl"
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-6)
    assert all(off_by(*pair) < 1e-4 for pair in zip(ours.gradients[1:], theirs.gradients[1:], strict=True))


@pytest.mark.parametrize("kind", ["full", "freeze", "bitfit", "ln_tuning", "ia3", "loha", "vera"])
def test_so_do_those_of_other_methods(kind, tiny, mixed_lengths, run):
    sections = {"method": {"kind": kind}, "training": {"learning_rate": 1e-2}}
    spec = spec_of(tiny("qwen2"), mixed_lengths, **sections)
    ours, theirs = run(spec), run(spec, fast=False)
    assert ours.plan.path == "fast"
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-5)
    assert off_by(ours.gradients[1], theirs.gradients[1]) < 1e-4


@pytest.mark.parametrize("changes", [{"rslora": True}, {"dora": True}, {"train_tokens": ["<|im_end|>"]}])
def test_and_those_of_variants_of_lora(changes, tiny, mixed_lengths, run):
    spec = spec_of(tiny("llama"), mixed_lengths, method={"kind": "lora", "rank": 4, **changes})
    ours, theirs = run(spec), run(spec, fast=False)
    assert ours.plan.path == "fast"
    assert off_by(ours.gradients[1], theirs.gradients[1]) < 1e-4


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_so_do_those_beside_a_quantised_base(quantization, tiny, mixed_lengths, run):
    spec = spec_of(tiny("llama"), mixed_lengths, quantization={"kind": quantization})
    ours, theirs = run(spec), run(spec, fast=False)
    assert ours.plan.path == "fast" and theirs.plan.path == "trl"
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-5)
    assert all(off_by(*pair) < 1e-4 for pair in zip(ours.gradients[1:], theirs.gradients[1:], strict=True))


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_in_bf16_they_differ_by_rounding(quantization, tiny, mixed_lengths, run):
    spec = spec_of(
        tiny("llama"),
        mixed_lengths,
        model={"dtype": "bf16"},
        quantization={"kind": quantization},
        training={"precision": "bf16"},
    )
    ours, theirs = run(spec), run(spec, fast=False)
    assert ours.plan.path == "fast"
    assert ours.losses == pytest.approx(theirs.losses, rel=5e-3)
    assert off_by(ours.gradients[0], theirs.gradients[0]) < 0.05


def test_packed_rows_do_not_see_each_other_either(tiny, mixed_lengths, run):
    sections = {"stage": {"kind": "sft", "packing": True}, "training": {"batch_size": 1, "accumulation": 2}}
    spec = spec_of(tiny("llama"), mixed_lengths, **sections)
    ours, theirs = run(spec), run(spec, fast=False)
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-5)


def test_recomputed_activations_change_nothing(tiny, mixed_lengths, run):
    spec = spec_of(tiny("llama"), mixed_lengths)
    again = spec_of(tiny("llama"), mixed_lengths, training={"gradient_checkpointing": "on"})
    assert all(off_by(*pair) < 1e-5 for pair in zip(run(again).gradients[1:], run(spec).gradients[1:], strict=True))


def test_dropout_of_the_adapter_drops_and_is_drawn_anew(tiny, mixed_lengths, run):
    spec = spec_of(tiny("llama"), mixed_lengths, method={"kind": "lora", "rank": 4, "dropout": 0.3})
    plain = spec_of(tiny("llama"), mixed_lengths)
    one, again, without = run(spec), run(spec), run(plain)
    assert one.plan.path == "fast" and one.losses == again.losses  # the same seed draws the same
    assert one.losses[2] != without.losses[2]


def test_a_model_that_caps_its_logits_takes_the_step_of_trl(tiny, mixed_lengths, run):
    seen = run(spec_of(tiny("gemma2"), mixed_lengths))
    assert seen.plan.path == "trl" and "on this model" in seen.plan.path_why
    assert all(torch.isfinite(torch.tensor(seen.losses)))
