"""Norms, gated MLPs, rotations and LoRA layers in their fused form, beside the modules that they stand for."""

import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from studio.engine.fast import layers, liger
from studio.engine.fast.layers import ROTARY, _Rotated, fuse_layers, rotating
from studio.engine.fast.lora import Fused, can_fuse


def loaded(folder, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).requires_grad_(False)


def with_gradient(module, x):
    x = x.clone().requires_grad_()
    out = module(x)
    (gradient,) = torch.autograd.grad(out.square().sum(), x)
    return out, gradient


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("llama", ["LlamaMLP", "LlamaRMSNorm"]),
        ("qwen3", ["Qwen3MLP", "Qwen3RMSNorm"]),
        ("gemma", ["GemmaRMSNorm"]),  # whose MLP has another activation
        ("gpt2", []),
    ],
)
def test_layers_give_what_they_gave_forward_and_backward(family, names, tiny):
    usual, fused = loaded(tiny(family)), loaded(tiny(family))
    assert [(each.name, each.library) for each in fuse_layers(fused)] == [(name, "") for name in names]
    for (name, one), other in zip(usual.named_modules(), fused.modules(), strict=True):
        if type(one).__name__ in names:
            size = one.weight.shape[0] if hasattr(one, "weight") else one.gate_proj.in_features
            x = torch.randn(2, 5, size)
            torch.testing.assert_close(
                with_gradient(other, x), with_gradient(one, x), msg=lambda text, n=name: n + text
            )


@pytest.mark.parametrize(("family", "unit"), [("llama", False), ("gemma", True)])
@pytest.mark.parametrize("better", [True, False])
def test_another_library_s_norm_is_taken_where_a_contest_says_so(family, unit, better, tiny, monkeypatch):
    asked = []

    def norm(x, weight, eps, *, unit):
        asked.append(unit)
        weight = 1 + weight if unit else weight
        return torch.nn.functional.rms_norm(x, x.shape[-1:], weight, eps)

    def quickest(usual, others, given):
        torch.testing.assert_close(usual(*given), others["liger"](*given))
        return "liger" if better else None

    monkeypatch.setattr(liger, "is_here", lambda device: True)
    monkeypatch.setattr(liger, "norm", norm)
    monkeypatch.setattr(liger, "gated_silu", lambda gate, up: torch.nn.functional.silu(gate) * up)
    monkeypatch.setattr(layers, "quickest", quickest)
    usual, model = loaded(tiny(family)), loaded(tiny(family))
    fused = {each.name: each.library for each in fuse_layers(model)}
    assert fused[f"{family.capitalize()}RMSNorm"] == ("liger" if better else "")
    asked.clear()
    ids = torch.arange(1, 9)[None]
    torch.testing.assert_close(model(ids).logits, usual(ids).logits)
    assert asked == ([unit] * 5 if better else [])


def test_a_norm_with_a_weight_of_nothing_is_left_alone(tiny):
    model = loaded(tiny())
    model.model.norm.weight[3] = 0  # its input could not be found again from its output
    assert "LlamaRMSNorm" not in [each.name for each in fuse_layers(model)]


def test_the_product_of_a_gated_mlp_is_not_kept(tiny):
    model = adapted(tiny())
    kept = {}
    for fused in (False, True):
        for layer in model.modules():
            if fused and can_fuse(layer, torch.float32):
                layer.forward = Fused(layer, torch.float32)
        if fused:
            fuse_layers(model.get_base_model())
        mlp, seen = model.get_base_model().model.layers[0].mlp, {}
        x = torch.randn(3, mlp.gate_proj.in_features, requires_grad=True)

        def see(tensor, seen=seen):
            seen[tensor.data_ptr()] = tuple(tensor.shape)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
            out = mlp(x)
        assert out.requires_grad
        kept[fused] = sum(shape == (3, mlp.gate_proj.out_features) for shape in seen.values())
    assert kept == {False: 4, True: 2}  # gate, silu(gate), up and the product; gate and up


def test_a_norm_that_trains_is_left_alone(tiny):
    model = loaded(tiny()).requires_grad_(True)
    assert "LlamaRMSNorm" not in [each.name for each in fuse_layers(model)]


def test_rotations_are_those_of_the_model_and_go_back(tiny):
    model = loaded(tiny())
    module = sys.modules[type(model).__module__]
    usual = getattr(module, ROTARY)
    query, key = torch.randn(1, 4, 6, 16, requires_grad=True), torch.randn(1, 2, 6, 16, requires_grad=True)
    cos, sin = torch.randn(1, 6, 16), torch.randn(1, 6, 16)  # as no model has them: each place counts
    wanted = usual(query, key, cos, sin)
    gradients = torch.autograd.grad(sum(each.square().sum() for each in wanted), (query, key))
    with rotating(model):
        found = getattr(module, ROTARY)(query, key, cos, sin)
        assert type(found[0].grad_fn).__name__.startswith(_Rotated.__name__)
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(
            torch.autograd.grad(sum(each.square().sum() for each in found), (query, key)), gradients
        )
    assert getattr(module, ROTARY) is usual


def adapted(folder, **options):
    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder), LoraConfig(r=4, target_modules="all-linear", **options)
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])  # without bias, with one, and (in, out)
def test_a_lora_layer_gives_what_peft_gives(family, tiny):
    usual, fused = adapted(tiny(family)), adapted(tiny(family))
    layers = [module for module in fused.modules() if can_fuse(module, torch.float32)]
    assert layers
    for layer in layers:
        layer.forward = Fused(layer, torch.float32)
    ids = torch.arange(20)[None]
    wanted, found = (model(input_ids=ids, labels=ids).loss for model in (usual, fused))
    torch.testing.assert_close(found, wanted)
    wanted.backward()
    found.backward()
    for (name, one), other in zip(usual.named_parameters(), fused.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(other.grad, one.grad, msg=lambda text, n=name: f"{n}: {text}")


def test_a_switched_off_adapter_is_off(tiny):
    model = adapted(tiny())
    ids = torch.arange(20)[None]
    with model.disable_adapter():
        wanted = model(input_ids=ids).logits
    for layer in model.modules():
        if can_fuse(layer, torch.float32):
            layer.forward = Fused(layer, torch.float32)
    with model.disable_adapter():
        torch.testing.assert_close(model(input_ids=ids).logits, wanted)


def test_variants_that_are_no_plain_sum_are_not_fused(tiny):
    model = adapted(tiny(), use_dora=True)
    assert not any(can_fuse(module, torch.float32) for module in model.modules())
