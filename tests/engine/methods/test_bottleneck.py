"""Bottleneck adapters: nothing at the start, something after training, and the same again when reloaded."""

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from studio.engine.methods.anatomy import sublayers
from studio.engine.methods.bottleneck import BottleneckConfig
from studio.events import Plan
from tests.engine.methods.runs import logits, sums, train

KINDS = ["llama", "qwen2", "gpt2"]


@pytest.fixture
def base(tiny):
    return lambda kind="llama": AutoModelForCausalLM.from_pretrained(tiny(kind), dtype=torch.float32).eval()


def wrapped(model, seed=None, **options):
    """A model with an adapter on it; seed: with values that change every answer."""
    names = sublayers(model, attention=True)
    tuned = get_peft_model(model, BottleneckConfig(task_type="CAUSAL_LM", target_modules=names, **options))
    if seed is not None:
        torch.manual_seed(seed)
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.2)
    return tuned


@pytest.mark.parametrize("kind", KINDS)
def test_it_changes_nothing_at_the_start(base, kind):
    before = logits(base(kind))
    assert torch.equal(logits(wrapped(base(kind))), before)


@pytest.mark.parametrize("kind", KINDS)
def test_it_reloads_can_be_switched_off_and_beside_another(base, kind, tmp_path):
    before = logits(base(kind))
    said = []
    for seed in (1, 2):
        model = wrapped(base(kind), seed, bottleneck_size=8, activation="relu")
        said.append(logits(model))
        model.save_pretrained(tmp_path / str(seed))
    both = PeftModel.from_pretrained(base(kind), tmp_path / "1", adapter_name="one")
    both.load_adapter(tmp_path / "2", "two")
    assert torch.equal(logits(both), said[0])
    both.set_adapter("two")
    assert torch.equal(logits(both), said[1]) and not torch.equal(said[0], said[1])
    with both.disable_adapter():
        assert torch.equal(logits(both), before)
    both.delete_adapter("two")
    both.set_adapter("one")
    assert torch.equal(logits(both), said[0])


def test_it_is_down_activation_up_and_added(base):
    model = wrapped(base(), 3, bottleneck_size=4, activation="silu")
    layer = model.get_base_model().model.layers[0].mlp
    seen = torch.randn(1, 5, 64)
    plain = layer.base_layer(seen)
    down, up = layer.bottleneck_down["default"], layer.bottleneck_up["default"]
    assert torch.allclose(layer(seen), plain + up(torch.nn.functional.silu(down(plain))), atol=1e-6)


def test_placements_stand_where_their_papers_have_them(base):
    model = base()
    assert sublayers(model, attention=False) == ["model.layers.0.mlp", "model.layers.1.mlp"]
    assert sublayers(model, attention=True)[:2] == ["model.layers.0.mlp", "model.layers.0.self_attn"]
    assert sublayers(base("gpt2"), attention=True)[2:] == ["transformer.h.1.mlp", "transformer.h.1.attn"]


def test_it_says_why_it_cannot_be_merged(base):
    with pytest.raises(ValueError, match="not linear"):
        wrapped(base(), 1).merge_and_unload()


@pytest.mark.parametrize(("placement", "quantization"), [("houlsby", "none"), ("pfeiffer", "nf4")])
def test_a_run_trains_it_and_plain_peft_reloads_it(tiny, studio_home, tmp_path, placement, quantization):
    method = {"kind": "bottleneck", "bottleneck_size": 8, "placement": placement, "dropout": 0.1}
    ran = train(tiny(), sums(tmp_path), tmp_path / "run", method, quantization={"kind": quantization})
    (plan,) = ran.run.of(Plan)
    places = 4 if placement == "houlsby" else 2
    assert plan.trainable_parameters == places * (64 * 8 + 8 + 8 * 64 + 64)
    ups = {n: t for n, t in load_file(ran.run.adapter / "adapter_model.safetensors").items() if "_up" in n}
    assert len(ups) == 2 * places and all(tensor.abs().max() > 0 for tensor in ups.values())
    assert (logits(ran.reloaded()) - logits(ran.plain())).abs().max() > 1e-3
