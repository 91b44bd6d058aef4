"""(IA)³ and LLaMA-Adapter: what they scale or add, that they train, and that plain PEFT reloads them."""

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from studio.engine.methods import tuning
from studio.errors import SpecError
from studio.events import Step
from studio.specs import AdaptionPromptMethod, Ia3Method
from tests.engine.methods.runs import logits, sums, train


def attached(folder, method):
    return tuning(method).attach(AutoModelForCausalLM.from_pretrained(folder), SimpleNamespace(task="CAUSAL_LM"))


def inner(model):
    """Layers whose input is scaled, where the others' output is."""
    return {name.rpartition("layers.")[2] for name, each in model.named_modules() if getattr(each, "is_feedforward", 0)}


@pytest.mark.parametrize(("kind", "per_layer"), [("llama", 3), ("qwen2", 3), ("gpt2", 2)])
def test_auto_is_what_peft_scales_in_each_architecture(tiny, kind, per_layer):
    model = attached(tiny(kind), Ia3Method())
    assert len(model.base_model.targeted_module_names) == 2 * per_layer and len(inner(model)) == 2


def test_of_all_linear_layers_only_the_last_of_each_mlp_has_its_input_scaled(tiny):
    model = attached(tiny(), Ia3Method(target_modules=["all-linear"]))
    assert len(model.base_model.targeted_module_names) == 14
    assert inner(model) == {"0.mlp.down_proj", "1.mlp.down_proj"}


def test_layers_and_exclusions_hold_for_ia3_too(tiny):
    model = attached(tiny(), Ia3Method(layers=[1], exclude_modules=["v_proj"]))
    assert set(model.base_model.targeted_module_names) == {
        "model.layers.1.self_attn.k_proj",
        "model.layers.1.mlp.down_proj",
    }


def test_auto_on_an_architecture_that_peft_does_not_know_asks_for_names(tiny):
    model = AutoModelForCausalLM.from_pretrained(tiny())
    model.config.model_type = "novel"
    with pytest.raises(SpecError, match="auto is not known for models of type novel"):
        tuning(Ia3Method()).attach(model, SimpleNamespace(task="CAUSAL_LM"))


def test_adaption_prompt_on_an_architecture_that_peft_does_not_know_names_those_it_does(tiny):
    with pytest.raises(SpecError, match="gpt2, llama, mistral, but this one is a qwen2"):
        attached(tiny("qwen2"), AdaptionPromptMethod())


def test_no_more_layers_are_adapted_than_there_are(tiny):
    config = attached(tiny(), AdaptionPromptMethod(adapter_length=3)).peft_config["default"]
    assert (config.adapter_layers, config.adapter_len) == (2, 3)


@pytest.mark.parametrize(
    ("model", "method", "atol"),
    [
        ("llama", {"kind": "ia3"}, 1e-4),
        ("gpt2", {"kind": "ia3"}, 1e-4),
        ("llama", {"kind": "adaption_prompt", "adapter_layers": 1}, None),
    ],
)
def test_it_trains_and_plain_peft_reloads_it(tiny, studio_home, tmp_path, model, method, atol):
    ran = train(tiny(model), sums(tmp_path), tmp_path / "run", method)
    losses = [step.loss for step in ran.run.of(Step)]
    assert len(set(losses)) == 3
    loaded = ran.reloaded()
    answers = logits(loaded)
    assert (answers - logits(ran.plain())).abs().max() > 1e-5
    assert torch.equal(logits(ran.reloaded(ran.run.checkpoints / "checkpoint-3")), answers)
    if atol is not None:
        assert torch.allclose(logits(loaded.merge_and_unload()), answers, atol=atol)


def test_adaption_prompts_train_in_fp32_on_a_base_in_half_precision(tiny, studio_home, tmp_path):
    method = {"kind": "adaption_prompt", "adapter_layers": 1}
    half = {"dtype": "bf16"}
    ran = train(tiny(), sums(tmp_path), tmp_path / "run", method, model=half, training={"precision": "fp32"})
    assert all(tensor.dtype == torch.float32 for tensor in ran.run.weights().values())
    assert len({step.loss for step in ran.run.of(Step)}) == 3
