"""LoRA's variants and AdaLoRA: what trains, what is saved, that plain PEFT reads it, and that a resume is exact."""

import json
import math

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from studio.engine.methods import Context, tuning
from studio.engine.methods.adalora import schedule, unevenness
from studio.engine.methods.tuning import STATE
from studio.engine.models.load import load_base
from studio.engine.models.quantize import keep_trainable
from studio.errors import SpecError
from studio.events import Plan, Step
from studio.specs import AdaLoraMethod, LoraMethod, QuantizationSpec, TrainSpec
from tests.engine.methods.runs import Ran, logits, sums, train
from tests.engine.test_train import Run, spec

SLOW = pytest.mark.slow
HEAVY = {"rank": 4, "dropout": 0.1}


@pytest.fixture
def ran(tiny, studio_home, tmp_path):
    def go(kind, method, **sections) -> Ran:
        method = {"kind": "lora"} | method
        return train(tiny(kind), sums(tmp_path), tmp_path / "run", method, **sections)

    return go


@pytest.fixture
def attached(tiny):
    """A model with a method put on it, without a run."""

    def go(kind, method, model=None, base=None, rows=()):
        model = model or AutoModelForCausalLM.from_pretrained(tiny(kind), dtype=torch.float32)
        wanted = spec(tiny(kind), "sums").model_copy(update={"method": method})
        ids = {"<|im_start|>": [1], "one": [7], "two": [8, 9]}
        context = Context(wanted, tiny(kind), ids.__getitem__, lambda count: iter(rows[:count]))
        torch.manual_seed(0)
        return tuning(method).attach(model, context)

    return go


def rows(count=8, length=24):
    torch.manual_seed(1)
    for _ in range(count):
        ids = torch.randint(3, 2000, (1, length))
        yield {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def holds(ran: Ran, last=3):
    """It moved, plain PEFT reloads outcome and checkpoint alike, and it merges."""
    base, model = logits(ran.plain()), ran.reloaded()
    moved = logits(model)
    assert (moved - base).abs().max() > 1e-3
    checkpoint = ran.run.checkpoints / f"checkpoint-{last}"
    assert torch.equal(logits(ran.reloaded(checkpoint)), moved)
    assert (logits(model.merge_and_unload(safe_merge=True)) - moved).abs().max() < 1e-4
    return moved


def counts(ran: Ran) -> int:
    (plan,) = ran.run.of(Plan)
    return plan.trainable_parameters


def config(ran: Ran) -> dict:
    return json.loads((ran.run.adapter / "adapter_config.json").read_text())


LINEAR = {"llama": 7 * 2, "qwen2": 7 * 2, "gpt2": 4 * 2}


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("llama", {"init": "gaussian", "dora": True, "rslora": True}),
        pytest.param("qwen2", {"init": "orthogonal", "loraplus_ratio": 16}, marks=SLOW),
        ("gpt2", {"init": "pissa", "rslora": True, "rank_pattern": {"c_attn": 2}}),
        pytest.param("llama", {"init": "pissa", "init_iterations": 4, "dora": True}, marks=SLOW),
        pytest.param("gpt2", {"init": "olora", "alpha_pattern": {"h.0.mlp.c_fc": 7}}, marks=SLOW),
        pytest.param("gpt2", {"init": "eva"}, marks=SLOW),
        ("gpt2", {"init": "corda", "dora": True}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(str(each) for each in value.values()),
)
def test_every_start_leaves_an_adapter_that_plain_peft_loads_onto_the_plain_base(ran, kind, method):
    run = ran(kind, {"rank": 4} | method)
    holds(run)
    saved = config(run)
    assert saved["init_lora_weights"] is True or method["init"] in ("gaussian",)
    twice = 2 if method["init"] in ("pissa", "olora", "corda") else 1
    assert saved["r"] == 4 * twice
    tensors = load_file(run.run.adapter / "adapter_model.safetensors")
    assert sum(".lora_A." in name for name in tensors) == LINEAR[kind]
    matrices = sum(tensor.numel() for name, tensor in tensors.items() if ".lora_A." in name or ".lora_B." in name)
    rest = sum(tensor.numel() for name, tensor in tensors.items() if "magnitude" in name)
    assert counts(run) == matrices // twice + rest


@pytest.mark.parametrize("init", ["pissa", "olora", "corda"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_start_from_the_weights_changes_nothing_at_first_and_is_not_zero(attached, tiny, kind, init):
    model = attached(kind, LoraMethod(rank=4, init=init), rows=list(rows()))
    plain = AutoModelForCausalLM.from_pretrained(tiny(kind), dtype=torch.float32)
    assert (logits(model) - logits(plain)).abs().max() < 1e-4
    with model.disable_adapter():
        assert (logits(model) - logits(plain)).abs().max() > 1e-3


def test_pissa_takes_the_principal_components(attached, tiny):
    model = attached("llama", LoraMethod(rank=4, alpha=4, init="pissa"))
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    whole = AutoModelForCausalLM.from_pretrained(tiny("llama")).model.layers[0].self_attn.q_proj.weight
    left = torch.linalg.svdvals(layer.base_layer.weight.detach())
    assert torch.allclose(left[:20], torch.linalg.svdvals(whole.detach().float())[4:24], atol=1e-4)


def test_orthogonal_matrices_differ_from_zero_while_their_product_is_zero(attached):
    model = attached("llama", LoraMethod(rank=4, init="orthogonal"))
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert a.abs().max() > 0.01 and b.abs().max() > 0.01 and (b @ a).abs().max() < 1e-6


def test_eva_begins_with_the_directions_in_which_the_inputs_vary(attached, tiny):
    sample = list(rows())
    model = attached("llama", LoraMethod(rank=2, init="eva"), rows=sample)
    plain = AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32).eval()
    seen = []
    hook = plain.model.layers[1].mlp.down_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    with torch.no_grad():
        for row in sample:
            plain(**row)
    hook.remove()
    inputs = torch.cat(seen) - torch.cat(seen).mean(0)
    best = torch.linalg.svdvals(inputs)[:2].pow(2).sum()
    a = model.base_model.model.model.layers[1].mlp.down_proj.lora_A["default"].weight
    caught = (inputs @ torch.linalg.qr(a.T).Q).pow(2).sum()
    # found row by row, and among directions that hardly differ, since the model is random; two by chance catch 0.08
    assert 0.7 * best < caught <= 1.001 * best


def test_too_few_rows_for_eva_are_told_with_their_tokens(attached):
    with pytest.raises(SpecError, match=r"method\.init_rows: takes in 48 tokens, too few for a rank of 32"):
        attached("llama", LoraMethod(rank=32, init="eva", init_rows=2), rows=list(rows()))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("quantized", ["nf4", "int8"])
def test_loftq_makes_up_for_what_rounding_took(attached, tiny, kind, quantized):
    base = load_base(tiny(kind), dtype="fp32", quantization=QuantizationSpec(kind=quantized))
    keep_trainable(base)
    exact = logits(AutoModelForCausalLM.from_pretrained(tiny(kind), dtype=torch.float32))
    rounded = (logits(base) - exact).pow(2).mean()
    model = attached(kind, LoraMethod(rank=32, alpha=64, init="loftq"), model=base)
    assert (logits(model) - exact).pow(2).mean() < 0.8 * rounded


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_a_start_from_the_weights_is_refused_where_these_are_rounded(attached, tiny, kind):
    base = load_base(tiny(kind), dtype="fp32", quantization=QuantizationSpec(kind="nf4"))
    with pytest.raises(SpecError, match="cannot take olora's start out of its weights"):
        attached(kind, LoraMethod(rank=4, init="olora"), model=base)


def test_a_rank_beyond_a_layers_size_is_refused_for_starts_from_the_weights(attached):
    with pytest.raises(SpecError, match=r"is 65, but with init pissa .*q_proj, which is 64 by 64, can have 64 at most"):
        attached("llama", LoraMethod(rank=65, init="pissa"))


def test_layers_of_one_number_are_adapted_and_no_others(ran):
    run = ran("qwen2", {"rank": 4, "layers": [1], "exclude_modules": ["down_proj"]})
    holds(run)
    tensors = load_file(run.run.adapter / "adapter_model.safetensors")
    assert all(".layers.1." in name and "down_proj" not in name for name in tensors)
    assert len(tensors) == 2 * 6


def test_of_two_entries_that_fit_a_layer_the_first_holds_also_when_reloaded(attached, tiny, tmp_path):
    """PEFT sorts the entries when it saves them."""
    method = LoraMethod(rank=4, rank_pattern={"layers.1.self_attn.q_proj": 2, "q_proj": 3}, target_modules=("q_proj",))
    model = attached("llama", method)
    tuning(method).save(model, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32)
    layers = PeftModel.from_pretrained(plain, tmp_path).base_model.model.model.layers
    assert [layer.self_attn.q_proj.r["default"] for layer in layers] == [3, 2]


def test_a_pattern_that_names_nothing_is_told(attached):
    with pytest.raises(SpecError, match=r"rank_pattern: 'qproj' names no adapted layer. Adapted: .*q_proj"):
        attached("llama", LoraMethod(rank_pattern={"qproj": 2}, alpha_pattern={"q_proj": 3}))


@pytest.mark.parametrize("kind", ["llama", pytest.param("qwen2", marks=SLOW)])
def test_an_adapter_on_the_output_head_trains_and_reloads(ran, kind):
    run = ran(kind, {"rank": 4, "target_modules": ["lm_head", "q_proj"]}, training={"gradient_checkpointing": "on"})
    moved = logits(run.reloaded())
    assert (moved - logits(run.plain())).abs().max() > 1e-3
    for folder in (run.run.adapter, run.run.checkpoints / "checkpoint-3"):
        tensors = load_file(folder / "adapter_model.safetensors")
        assert all(".lora_" in name for name in tensors), "the head's own weights are not copied"
        assert tensors["base_model.model.lm_head.lora_B.weight"].abs().max() > 0
    if kind == "llama":  # where the head shares its weight with the embeddings, these would change along
        holds(run)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param("llama", "embed_tokens", marks=SLOW),
        ("qwen2", "lm_head"),
        pytest.param("gpt2", "wte", marks=SLOW),
    ],
)
def test_modules_that_train_whole_are_saved_and_a_shared_weight_stays_shared(ran, kind, name):
    run = ran(kind, {"rank": 4, "modules_to_save": [name]})
    holds(run)
    model = run.reloaded().merge_and_unload()
    if model.config.tie_word_embeddings:
        assert torch.equal(model.get_input_embeddings().weight, model.get_output_embeddings().weight)
        assert not torch.equal(model.get_input_embeddings().weight, run.plain().get_input_embeddings().weight)


@pytest.mark.parametrize("kind", [pytest.param("llama", marks=SLOW), "gpt2"])
def test_the_embeddings_of_chosen_tokens_train_and_no_others(ran, kind):
    run = ran(kind, {"rank": 4, "train_tokens": ["<|im_start|>", "<|im_end|>"]})
    holds(run)
    model, plain = run.reloaded().merge_and_unload(), run.plain()
    changed = (model.get_input_embeddings().weight != plain.get_input_embeddings().weight).any(1)
    assert changed.nonzero().flatten().tolist() == [1, 2]


def test_a_text_that_is_not_one_token_is_refused_by_name(attached):
    with pytest.raises(SpecError, match=r"method\.train_tokens: 'two' is 2 tokens for .*\. Name texts"):
        attached("llama", LoraMethod(train_tokens=("one", "two")))


@pytest.mark.parametrize("optimizer", [pytest.param("adamw_torch", marks=SLOW), "adamw_8bit"])
def test_loraplus_lets_b_learn_faster_under_any_optimiser(ran, monkeypatch, optimizer):
    seen = {}

    def look(trainer):
        groups = trainer.optimizer.param_groups
        names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
        for group in groups:
            for parameter in group["params"]:
                seen[names[id(parameter)]] = (group["initial_lr"], group["weight_decay"], parameter.dtype)
        return trainer

    from transformers import Trainer

    kept = Trainer.create_scheduler
    monkeypatch.setattr(Trainer, "create_scheduler", lambda self, *a, **o: (kept(self, *a, **o), look(self))[0])
    training = {"optimizer": optimizer, "weight_decay": 0.1, "learning_rate": 1e-3}
    ran("llama", {"rank": 4, "loraplus_ratio": 8, "dora": True}, training=training)
    assert {value for name, value in seen.items() if ".lora_B." in name} == {(8e-3, 0.1, torch.float32)}
    assert {value[0] for name, value in seen.items() if ".lora_B." not in name} == {1e-3}
    assert len(seen) == 14 * 3


@pytest.mark.parametrize("rslora", [False, pytest.param(True, marks=SLOW)])
def test_query_key_and_value_of_a_fused_layer_are_adapted_apart(ran, tiny, rslora):
    run = ran("gpt2", {"rank": 4, "split_fused": True, "rslora": rslora, "alpha": 8})
    holds(run)
    tensors = load_file(run.run.adapter / "adapter_model.safetensors")
    b = tensors["base_model.model.transformer.h.0.attn.c_attn.lora_B.weight"]
    blocks = [b[64 * part : 64 * (part + 1), 4 * part : 4 * (part + 1)] for part in range(3)]
    assert b.shape == (192, 12) and all(block.abs().min() > 0 for block in blocks)
    assert torch.equal(b, torch.block_diag(*blocks))
    # three of A (4 by 64) and of B (64 by 4) in c_attn, and one pair for each of the other three layers
    assert counts(run) == 2 * (3 * 4 * (64 + 64) + 4 * (64 + 64) + 2 * 4 * (64 + 256))
    layer = run.reloaded().base_model.model.transformer.h[0].attn
    assert layer.c_attn.scaling["default"] == pytest.approx(layer.c_proj.scaling["default"])
    assert layer.c_proj.scaling["default"] == (8 / math.sqrt(4) if rslora else 2)


def test_splitting_needs_a_fused_layer_and_says_so(attached):
    with pytest.raises(SpecError, match=r"method\.split_fused: needs a layer that holds query, key and value"):
        attached("llama", LoraMethod(split_fused=True))


def resumed_equals_whole(tiny, studio_home, tmp_path, kind, method):
    wanted = spec(tiny(kind), sums(tmp_path), evaluation={"prompts": []}, training={"save_steps": 100, "max_steps": 6})
    wanted = TrainSpec.model_validate(wanted.model_dump(mode="json") | {"method": method})
    whole, halved = Run(tmp_path / "whole"), Run(tmp_path / "halved")
    whole(wanted)
    assert halved(wanted, stop_at=4) is None
    losses = [step.loss for step in halved.of(Step)]
    assert halved(wanted) == halved.adapter
    assert losses + [step.loss for step in halved.of(Step)] == [step.loss for step in whole.of(Step)]
    assert whole.weights().keys() == halved.weights().keys()
    for name, tensor in whole.weights().items():
        assert torch.equal(tensor, halved.weights()[name]), name


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("llama", {"kind": "adalora", "rank": 2, "init_rank": 4, "dropout": 0.1}),
        ("gpt2", HEAVY | {"kind": "lora", "init": "pissa", "init_iterations": 2}),
        pytest.param("qwen2", HEAVY | {"kind": "lora", "dora": True}, marks=SLOW),
        pytest.param("llama", HEAVY | {"kind": "lora", "init": "eva", "loraplus_ratio": 4}, marks=SLOW),
        pytest.param("gpt2", HEAVY | {"kind": "lora", "split_fused": True}, marks=SLOW),
    ],
    ids=["adalora", "pissa", "dora", "eva", "split"],
)
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(tiny, studio_home, tmp_path, kind, method):
    resumed_equals_whole(tiny, studio_home, tmp_path, kind, method)


@pytest.mark.parametrize(
    ("kind", "method"),
    [("llama", {}), pytest.param("gpt2", {"modules_to_save": ["wte"], "every_steps": 2}, marks=SLOW)],
)
def test_adalora_cuts_to_the_average_rank_and_leaves_a_plain_lora(ran, kind, method):
    method = {"kind": "adalora", "rank": 2, "init_rank": 4, "warmup_share": 0.2} | method
    run = ran(kind, method, training={"max_steps": 6, "save_steps": 6})
    holds(run, last=6)
    assert (run.run.checkpoints / "checkpoint-6" / STATE).is_file()
    saved = config(run)
    assert saved["peft_type"] == "LORA"
    tensors = load_file(run.run.adapter / "adapter_model.safetensors")
    ranks = [len(tensor) for name, tensor in tensors.items() if ".lora_A." in name]
    assert len(ranks) == LINEAR[kind] and max(ranks) <= 4
    emptied = sum(not tensor.any() for name, tensor in tensors.items() if ".lora_A." in name)
    assert sum(ranks) - emptied == 2 * len(ranks), "the budget is spent to the last direction"
    first = run.run.of(Step)[0].loss
    assert first == pytest.approx(math.log(6400), rel=0.05), "told without the pull to orthogonal factors"


def test_the_pull_is_towards_orthogonal_factors(attached):
    method = {"kind": "adalora", "rank": 2, "init_rank": 4, "orthogonality": 10}
    model = attached("llama", AdaLoraMethod(**method))
    before = unevenness(model)
    before.backward()
    assert any(tensor.grad is not None and tensor.grad.any() for tensor in model.parameters())
    identity = torch.eye(4)
    expected = [
        (tensor @ tensor.T if ".lora_A." in name else tensor.T @ tensor) - identity
        for name, tensor in model.named_parameters()
        if ".lora_A." in name or ".lora_B." in name
    ]
    assert before.item() == pytest.approx(torch.stack([each.norm() for each in expected]).mean().item())


@pytest.mark.parametrize(
    ("total", "shares", "expected"),
    [(100, (0.1, 0.3), (10, 30)), (4, (0.9, 0.0), (3, 0)), (3, (0.5, 0.49), (1, 1)), (3, (0.0, 0.9), (0, 1))],
)
def test_a_budget_always_leaves_steps_in_which_ranks_are_cut(total, shares, expected):
    warmup, final = schedule(total, warmup_share=shares[0], final_share=shares[1])
    assert (warmup, final) == expected and warmup < total - final and total - final >= 2
    assert schedule(2, warmup_share=0.1, final_share=0.1) is None


@pytest.mark.parametrize(
    ("method", "field"),
    [
        ({"init": "loftq"}, "method.init: is loftq"),
        ({"init": "orthogonal", "rank": 5}, "method.rank: is 5"),
        ({"init": "pissa", "split_fused": True}, "method.split_fused: does not go with init pissa"),
        ({"kind": "adalora", "rank": 8, "init_rank": 8}, "method.init_rank: is 8. Set it above method.rank, 8"),
        ({"kind": "adalora", "warmup_share": 0.6, "final_share": 0.5}, "method.warmup_share: and"),
    ],
)
def test_what_cannot_go_together_is_refused_in_the_spec(tmp_path, method, field):
    with pytest.raises(SpecError, match=field):
        spec(tmp_path, "sums", method={"rank": 4, "kind": "lora"} | method)
