"""What runs leave, opened beside each other: adapters of every kind and whole models, over one copy of the base."""

import json
import shutil

import pytest
import torch
from peft import (
    AdaptionPromptConfig,
    IA3Config,
    LNTuningConfig,
    LoraConfig,
    MultitaskPromptTuningConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    TrainableTokensConfig,
    VeraConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from studio.data.example import Message
from studio.engine.chat import Chat, Turn
from studio.engine.generate import BASE, Request, complete
from studio.engine.held import ADAPTER, Held, mixes, virtual_tokens, with_adapter
from studio.engine.methods.bottleneck import BottleneckConfig
from studio.engine.methods.soft_prompt import answer_as
from studio.engine.metrics.likelihood import likelihoods
from studio.engine.models.load import RECORD
from studio.engine.models.resolve import identity
from studio.engine.trained import open_beside_base, open_trained
from studio.errors import ModelError, ServingError
from studio.specs import ModelSpec, QuantizationSpec, Sampling, TrainSpec, parse

PROMPTS = [[5, 9, 300], [17, 4000, 23, 8, 99, 1200, 7], [42]]
LENGTH = 6
SUBLAYERS = [f"model.layers.{n}.{part}" for n in (0, 1) for part in ("self_attn", "mlp")]
CONFIGS = {
    "lora": lambda: LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear"),
    "larger": lambda: LoraConfig(task_type="CAUSAL_LM", r=8, target_modules="all-linear"),
    "dora": lambda: LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", use_dora=True),
    "ia3": lambda: IA3Config(task_type="CAUSAL_LM"),
    "vera": lambda: VeraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear"),
    "small vera": lambda: VeraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", save_projection=False),
    "tokens": lambda: TrainableTokensConfig(task_type="CAUSAL_LM", token_indices=[5, 7]),
    "patches": lambda: LoraConfig(
        task_type="CAUSAL_LM",
        r=4,
        target_modules="all-linear",
        trainable_token_indices=[5, 7],
        modules_to_save=["norm"],
    ),
    "norms": lambda: LNTuningConfig(task_type="CAUSAL_LM"),
    "bottleneck": lambda: BottleneckConfig(task_type="CAUSAL_LM", target_modules=SUBLAYERS),
    "adaption": lambda: AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=4, adapter_layers=2),
    "prompt": lambda: PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
    "tasks": lambda: MultitaskPromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5, num_tasks=2, num_ranks=1),
    "encoder": lambda: PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=5, encoder_hidden_size=16),
    "prefix": lambda: PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
}
SOFT = ("prompt", "tasks", "encoder", "prefix")


def load(folder, **options):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()


def strong(model, seed):
    """Change what trains so much that every answer changes."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * (3.0 if "prompt" in name else 0.3))
    return model.eval()


def generated(model, prompt, **options):
    """What PEFT's own generate says."""
    ids = torch.tensor([prompt])
    said = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=LENGTH, do_sample=False, eos_token_id=-1,
        **options,
    )  # fmt: skip
    return said[0, -LENGTH:].tolist()


def asked(prompts, names):
    return [Request(prompt, name, Sampling(max_tokens=LENGTH)) for prompt, name in zip(prompts, names, strict=True)]


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """(folder of adapters by name, what each says to each prompt by PEFT's generate)."""
    place, said = tmp_path_factory.mktemp("adapters"), {}
    for seed, (name, config) in enumerate(CONFIGS.items()):
        model = strong(get_peft_model(load(tiny()), config()), seed)
        model.save_pretrained(place / name)
        (place / name / RECORD).write_text(json.dumps({"base": "tiny", "identity": identity(tiny())}), "utf-8")
        options = {"task_ids": torch.tensor([0])} if name == "tasks" else {}
        said[name] = [generated(model, prompt, **options) for prompt in PROMPTS]
    return place, said


@pytest.fixture(scope="module")
def held(tiny, made):
    """All of them beside each other."""
    both = Held(load(tiny()))
    for name in CONFIGS:
        both.add(name, made[0] / name, dtype="fp32")
    return both


def test_every_kind_answers_beside_all_others_as_pefts_generate_does_alone(tiny, made, held):
    names = [*CONFIGS, BASE]
    together = complete(held, asked([PROMPTS[1]] * len(names), names))
    wanted = {name: said[1] for name, said in made[1].items()} | {BASE: generated(load(tiny()), PROMPTS[1])}
    assert dict(zip(names, together, strict=True)) == wanted
    assert sum(wanted[name] != wanted[BASE] for name in CONFIGS) == len(CONFIGS), "each must change the answer"


@pytest.mark.parametrize("name", CONFIGS)
def test_prompts_of_unlike_length_in_one_batch_answer_as_each_alone(made, held, name):
    assert complete(held, asked(PROMPTS, [name] * len(PROMPTS))) == made[1][name]


@pytest.mark.parametrize("name", SOFT)
def test_a_soft_prompt_takes_positions(held, name):
    assert virtual_tokens(held.place(name)) == 5 and virtual_tokens(held.place(BASE)) == 0


def test_all_share_one_copy_of_the_bases_weights(held):
    base = {id(parameter) for parameter in held.base.parameters()}
    norms = {id(p) for name, p in held.base.named_parameters() if "norm" in name}  # the first kind replaces these
    for name in CONFIGS:
        inside = {id(parameter) for parameter in held.place(name).model.parameters()}
        assert base - norms <= inside, name
    assert not any(hasattr(module, "base_layer") for module in held.base.modules()), "the base is left alone"


def test_only_plain_lora_shares_a_batch(made, held):
    assert {name for name, config in CONFIGS.items() if mixes(config())} == {"lora", "larger"}
    assert held.place("lora").model is held.place("larger").model
    assert len({id(held.place(name).model) for name in CONFIGS}) == len(CONFIGS) - 1


@pytest.mark.parametrize("name", CONFIGS)
def test_the_likelihood_of_an_adapter_is_that_of_its_own_forward_pass(tiny, made, held, name):
    rows = [([5, 9, 300, 77, 8], [False, False, True, True, True]), ([17, 4, 23], [False, True, True])]
    model = with_adapter(load(tiny()), made[0] / name)
    answer_as(model, ADAPTER)
    with held.using(name) as one:
        found = likelihoods(one, rows)
    for (ids, supervised), each in zip(rows, found, strict=True):
        labels = torch.tensor([[token if learn else -100 for token, learn in zip(ids, supervised, strict=True)]])
        with torch.inference_mode():
            loss = model(input_ids=torch.tensor([ids]), labels=labels).loss
        assert each.loss == pytest.approx(loss.item(), rel=1e-4) and each.tokens == sum(supervised)


def test_on_a_4_bit_base_they_share_its_weights_too(tiny, made):
    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    both, names = Held(load(tiny(), quantization_config=four)), ["lora", "ia3", "bottleneck", "prefix"]
    before = complete(both, asked([PROMPTS[1]], [BASE]))
    for name in names:
        both.add(name, made[0] / name, dtype="fp32")
    together = complete(both, asked([PROMPTS[1]] * 5, [*names, BASE]))
    assert together[4:] == before and len({tuple(answer) for answer in together}) == 5
    alone = [complete(both, asked([PROMPTS[1]], [name]))[0] for name in names]
    assert together[:4] == alone


@pytest.mark.parametrize("name", ["ia3", "bottleneck", "adaption", "prefix", "tasks"])
@pytest.mark.parametrize("damage", ["lacks", "not numbers"])
def test_f45_f46_a_damaged_adapter_of_any_kind_is_refused(tiny, made, tmp_path, name, damage):
    broken = shutil.copytree(made[0] / name, tmp_path / "broken")
    values = load_file(broken / "adapter_model.safetensors")
    first = next(iter(values))
    if damage == "lacks":
        del values[first]
    else:
        values[first].fill_(float("nan"))
    save_file(values, broken / "adapter_model.safetensors")
    one = Held(load(tiny()))
    with pytest.raises(ModelError, match="does not fit this base"):
        one.add("bad", broken, dtype="fp32")
    with pytest.raises(KeyError):
        one.place("bad")


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """A model that was trained whole, as a run leaves it."""
    place = tmp_path_factory.mktemp("whole") / "adapter"
    strong(load(tiny()), 7).save_pretrained(place)
    (place / RECORD).write_text(json.dumps({"base": "tiny", "identity": identity(tiny())}), "utf-8")
    return place


def spec(folder, **sections):
    return parse(TrainSpec, {"model": {"name": str(folder), "dtype": "fp32"}, **sections})


def test_a_whole_model_answers_beside_the_base_and_an_adapter(tiny, made, whole, held):
    both = Held(load(tiny()))
    both.add("whole", whole, dtype="fp32")
    both.add("lora", made[0] / "lora", dtype="fp32")
    said = complete(both, asked([PROMPTS[1]] * 3, ["whole", BASE, "lora"]))
    assert said == [
        generated(load(whole), PROMPTS[1]),
        generated(load(tiny()), PROMPTS[1]),
        made[1]["lora"][1],
    ]


def test_a_whole_run_opens_alone_and_beside_its_base(tiny, whole):
    wanted = spec(tiny(), method={"kind": "full"}, quantization={"kind": "none"})
    alone = open_trained(wanted, whole, lambda event: None, dtype="fp32")
    assert not hasattr(alone.model, "disable_adapter")
    both = open_beside_base(wanted, whole, lambda event: None)
    ids = torch.tensor([PROMPTS[1]])
    with torch.inference_mode(), both.model.using(ADAPTER) as tuned, both.model.using(BASE) as base:
        assert torch.equal(tuned(ids).logits, alone.model(ids).logits)
        assert torch.equal(base(ids).logits, load(tiny())(ids).logits)


@pytest.mark.parametrize("damage", ["lack 1 tensors", "not numbers"])
def test_a_damaged_whole_model_is_refused(tiny, whole, tmp_path, damage):
    broken = shutil.copytree(whole, tmp_path / "broken")
    values = load_file(broken / "model.safetensors")
    if damage == "not numbers":
        values["model.norm.weight"].fill_(float("nan"))
    else:
        del values["model.norm.weight"]
    save_file(values, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=damage):
        Held(load(tiny())).add("bad", broken, dtype="fp32")


def test_a_chat_holds_runs_of_unlike_methods_and_takes_the_soft_prompts_positions_off(tiny, made, whole):
    chat = Chat(ModelSpec(name=str(tiny()), dtype="fp32"), QuantizationSpec(kind="none"), lambda *_: None)
    for name in ("lora", "ia3", "prompt"):
        chat.add(name, made[0] / name, spec(tiny()))
    chat.add("whole", whole, spec(tiny(), method={"kind": "full"}, quantization={"kind": "none"}))
    turns = [
        Turn(name, [Message("user", "你好")], Sampling(max_tokens=600))
        for name in ("base", "lora", "ia3", "prompt", "whole")
    ]
    requests = [chat.request(turn).request for turn in turns]
    room = [request.sampling.max_tokens + len(request.prompt) for request in requests]
    assert room == [512, 512, 512, 507, 512]


def test_who_writes_no_text_cannot_chat(tiny, made, tmp_path):
    chat = Chat(ModelSpec(name=str(tiny()), dtype="fp32"), QuantizationSpec(kind="none"), lambda *_: None)
    judge = shutil.copytree(made[0] / "lora", tmp_path / "judge")
    for labels, words in ((["good"], "reward model"), (["ham", "spam"], "2 labels")):
        record = json.loads((judge / RECORD).read_text("utf-8")) | {"labels": labels}
        (judge / RECORD).write_text(json.dumps(record), "utf-8")
        with pytest.raises(ServingError, match=f"{words}.*Measure it on the Evaluate tab"):
            chat.add("judge", judge, spec(tiny()))
    assert chat.names == ["base"]
