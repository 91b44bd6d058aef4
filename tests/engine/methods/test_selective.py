"""Full, freeze, BitFit, layer norms and tokens: what trains, what is saved, and that plain PEFT reads it."""

import json
from types import SimpleNamespace

import pytest
import torch
from peft import PeftConfig
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from studio.engine.methods.anatomy import norms
from studio.engine.methods.selective import BiasLayer, trainable_tokens
from studio.errors import SpecError
from studio.events import Plan, Sample
from studio.specs import TrainableTokensMethod
from tests.engine.methods.runs import IDS, Ran, logits, sums, train

KINDS = ["llama", "qwen2", "gpt2"]


@pytest.fixture
def ran(tiny, studio_home, tmp_path):
    def go(kind, method, **sections) -> Ran:
        return train(tiny(kind), sums(tmp_path), tmp_path / "run", method, **sections)

    return go


def trains_and_reloads(ran: Ran):
    """Whatever trained has moved, is off where the adapter is, merges, and a checkpoint is the same as the outcome."""
    base, model = logits(ran.plain()), ran.reloaded()
    moved = logits(model)
    assert (moved - base).abs().max() > 1e-3
    with model.disable_adapter():
        assert torch.equal(logits(model), base)
    assert torch.equal(logits(ran.reloaded(ran.run.checkpoints / "checkpoint-3")), moved)
    merged = model.merge_and_unload()
    assert type(merged) is type(ran.plain()) and (logits(merged) - moved).abs().max() < 1e-4


def trainable(ran: Ran) -> int:
    (plan,) = ran.run.of(Plan)
    return plan.trainable_parameters


@pytest.mark.parametrize("kind", KINDS)
def test_freezing_trains_the_last_layers_whole_and_nothing_else(ran, kind):
    run = ran(kind, {"kind": "freeze", "last_layers": 1})
    base = run.plain()
    layers = base.transformer.h if kind == "gpt2" else base.model.layers
    assert trainable(run) == sum(parameter.numel() for parameter in layers[1].parameters())
    trains_and_reloads(run)
    assert all(".1." in name for name in load_file(run.run.adapter / "adapter_model.safetensors"))


def test_more_last_layers_than_there_are_is_refused_with_the_models_number(ran):
    with pytest.raises(SpecError, match=r"method\.last_layers: is 3, but .* has 2 "):
        ran("llama", {"kind": "freeze", "last_layers": 3})


@pytest.mark.parametrize("kind", KINDS)
def test_layer_norm_tuning_trains_every_norm(ran, kind):
    run = ran(kind, {"kind": "ln_tuning"})
    base = run.plain()
    assert len(norms(base)) == 5, "two in each of two layers, and the last"
    assert trainable(run) == sum(p.numel() for name in norms(base) for p in base.get_submodule(name).parameters())
    trains_and_reloads(run)


def test_norms_train_in_fp32_on_a_base_of_16_bits_and_answer_meanwhile(ran):
    run = ran("llama", {"kind": "ln_tuning"}, model={"dtype": "bf16"})
    saved = load_file(run.run.adapter / "adapter_model.safetensors")
    assert all(tensor.dtype == torch.float32 for tensor in saved.values()) and run.run.of(Sample)


@pytest.mark.parametrize(("kind", "peft_type"), [("qwen2", "BEFT"), ("gpt2", "BITFIT")])
def test_bitfit_trains_every_bias_and_nothing_else(ran, kind, peft_type):
    run = ran(kind, {"kind": "bitfit"})
    biases = {name: p for name, p in run.plain().named_parameters() if name.endswith(".bias")}
    assert trainable(run) == sum(parameter.numel() for parameter in biases.values())
    assert PeftConfig.from_pretrained(run.run.adapter).peft_type == peft_type
    trains_and_reloads(run)
    merged = dict(run.reloaded().merge_and_unload().named_parameters())
    for name, parameter in run.plain().named_parameters():
        assert torch.equal(merged[name], parameter) == (name not in biases), name


def test_the_gradient_of_what_is_added_is_that_of_the_bias(tiny):
    model = AutoModelForCausalLM.from_pretrained(tiny("gpt2")).eval()
    ids = torch.tensor([[5, 6, 7, 900]])
    model(input_ids=ids, labels=ids).loss.backward()
    attention, norm = model.transformer.h[0].attn, model.transformer.ln_f
    wanted = [attention.c_attn.bias.grad.clone(), norm.bias.grad.clone()]
    model.transformer.h[0].attn.c_attn, model.transformer.ln_f = BiasLayer(attention.c_attn), BiasLayer(norm)
    added = []
    for layer in (model.transformer.h[0].attn.c_attn, model.transformer.ln_f):
        layer.add("default")
        layer.set_adapter("default")
        added.append(layer.bitfit_bias["default"])
    model(input_ids=ids, labels=ids).loss.backward()
    for one, other in zip(added, wanted, strict=True):
        assert torch.allclose(one.grad, other, atol=1e-6)


def test_bitfit_on_a_model_without_biases_names_what_works(ran):
    with pytest.raises(SpecError, match=r"method\.kind: .*bitfit.* Use ln_tuning or lora"):
        ran("llama", {"kind": "bitfit"})


@pytest.mark.parametrize("kind", KINDS)  # all but llama share their weights between embeddings and head
def test_only_the_rows_of_chosen_tokens_train(ran, kind):
    run = ran(kind, {"kind": "trainable_tokens", "train_tokens": ["<|im_start|>", "<|im_end|>"]})
    assert trainable(run) == 2 * 64
    trains_and_reloads(run)
    before = run.plain().get_input_embeddings().weight
    merged = run.reloaded().merge_and_unload()
    changed = (merged.get_input_embeddings().weight != before).any(-1).nonzero().flatten()
    assert changed.tolist() == [1, 2]
    shared = run.plain().config.tie_word_embeddings
    assert torch.equal(merged.get_output_embeddings().weight, merged.get_input_embeddings().weight) == shared


def test_trls_loss_gives_tokens_the_gradient_that_the_models_own_loss_gives(tiny):
    """trl multiplies with the head's weights itself; without the trained tokens in them, the head would not learn."""
    gradients = []
    for ask in ("labels", "fused"):
        base = AutoModelForCausalLM.from_pretrained(tiny("gpt2"), dtype=torch.float32).eval()
        context = SimpleNamespace(token_ids=lambda text: [int(text)], task="CAUSAL_LM")
        model = trainable_tokens(TrainableTokensMethod(train_tokens=("6", "900"))).attach(base, context)
        add_fused_lm_head(model.get_base_model())
        options = {"fused_lm_head": True} if ask == "fused" else {}
        model(input_ids=IDS, labels=IDS, **options).loss.backward()
        gradients.append(next(p.grad for p in model.parameters() if p.requires_grad))
    assert gradients[0].shape == (2, 64) and torch.allclose(*gradients, atol=1e-6)


def test_a_text_that_is_several_tokens_is_refused_by_name(ran):
    with pytest.raises(SpecError, match=r"method\.train_tokens: 'two words' is \d+ tokens"):
        ran("llama", {"kind": "trainable_tokens", "train_tokens": ["<|im_end|>", "two words"]})


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_full_fine_tuning_leaves_a_whole_model_that_plain_transformers_loads(ran, kind):
    run = ran(kind, {"kind": "full"}, model={"dtype": "auto"})
    before, after = run.plain(), AutoModelForCausalLM.from_pretrained(run.run.adapter, dtype="auto")
    assert after.dtype == torch.float32 and trainable(run) == sum(p.numel() for p in before.parameters())
    for (name, one), other in zip(before.named_parameters(), after.parameters(), strict=True):
        assert not torch.equal(one, other), name
    assert not (run.run.adapter / "adapter_config.json").exists()
    assert json.loads((run.run.adapter / "studio.json").read_text())["method"] == "full"
    checkpoint = AutoModelForCausalLM.from_pretrained(run.run.checkpoints / "checkpoint-3")
    assert torch.equal(logits(checkpoint), logits(after))


@pytest.mark.parametrize("kind", ["bitfit", "ln_tuning", "trainable_tokens"])
def test_on_a_4_bit_base_too(ran, kind):
    run = ran("qwen2", {"kind": kind}, quantization={"kind": "nf4"})
    assert (logits(run.reloaded()) - logits(run.plain())).abs().max() > 1e-3
