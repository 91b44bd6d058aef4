"""The count before anything loads is what the run reports: for every method, on three architectures."""

import copy
import json
import subprocess
import sys
from functools import cache
from math import prod

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from studio.engine import counting
from studio.engine.counting.parameters import counted
from studio.engine.counting.shapes import from_header
from studio.engine.methods import TUNINGS, Context, tuning
from studio.engine.models.tokenizer import tokenizer_of
from studio.engine.stages import STAGES
from studio.engine.train import parameter_counts
from studio.errors import DataError, SpecError
from studio.specs import TrainSpec, kinds, parse

TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VARIANTS = {
    "lora": {},
    "lora, dora": {"dora": True},
    "lora, ranks": {"rank_pattern": {"self_attn.q_proj": 2, r"layers\.1\.mlp.*": 7}},
    "lora, names": {"target_modules": ["q_proj", "v_proj"]},
    "lora, attention": {"target_modules": ["attention"]},
    "lora, pattern": {"target_modules": [r"re:.*\.1\..*(o_proj|c_fc)"]},
    "lora, some": {"layers": [1], "exclude_modules": ["mlp.down_proj"]},
    "lora, lm_head": {"target_modules": ["lm_head"]},
    "lora, head whole": {"modules_to_save": ["lm_head"]},
    "lora, embeddings whole": {"modules_to_save": ["embed_tokens"]},
    "lora, tokens": {"train_tokens": TOKENS},
    "lora, pissa": {"init": "pissa"},
    "lora, olora": {"init": "olora"},
    "lora, split": {"split_fused": True},
    "adalora": {},
    "loha": {"rank": 4},
    "lokr": {"rank": 4},
    "lokr, both": {"rank": 2, "decompose_both": True, "decompose_factor": 4},
    "oft": {},
    "oft, shared": {"shared_blocks": True, "block_size": 16},
    "boft": {"block_size": 8},
    "vera": {"rank": 8},
    "vera, lean": {"rank": 8, "save_projection": False},
    "randlora": {"rank": 12},
    "randlora, lean": {"rank": 12, "save_projection": False},
    "vblora": {"num_vectors": 20},
    "vblora, length": {"num_vectors": 20, "vector_length": 16},
    "fourierft": {"frequencies": 100},
    "hra": {"rank": 4},
    "miss": {"rank": 6},
    "miss, bat": {"rank": 8, "shape": "bat"},
    "miss, mini": {"rank": 6, "shape": "mini"},
    "ia3": {},
    "ia3, attention": {"target_modules": ["attention"]},
    "ia3, all": {"target_modules": ["all-linear"]},
    "adaption_prompt": {},
    "adaption_prompt, upper": {"adapter_layers": 1, "adapter_length": 3},
    "bottleneck": {"bottleneck_size": 5},
    "bottleneck, pfeiffer": {"placement": "pfeiffer"},
    "prompt_tuning": {"virtual_tokens": 3},
    "multitask_prompt_tuning": {"virtual_tokens": 3, "task_rank": 2},
    "p_tuning": {"encoder_hidden_size": 24},
    "p_tuning, lstm": {"encoder": "lstm", "encoder_layers": 3, "encoder_hidden_size": 10},
    "prefix_tuning": {},
    "prefix_tuning, projection": {"projection": True, "encoder_hidden_size": 24},
    "full": {},
    "freeze": {"last_layers": 1},
    "bitfit": {},
    "ln_tuning": {},
    "trainable_tokens": {},
    "adamix": {"rank": 4, "copies": 3},
}
WHERE_TIED_OR_BIASED = (
    *("lora", "lora, lm_head", "lora, head whole", "lora, embeddings whole", "lora, tokens", "adalora", "vera", "ia3"),
    *("adaption_prompt", "prefix_tuning", "full", "freeze", "bitfit", "ln_tuning", "trainable_tokens", "adamix"),
)
"""Methods that could differ on Qwen, which is as llama otherwise."""
CASES = [(variant, kind) for variant in VARIANTS for kind in ("llama", "gpt2")]
CASES += [(variant, "qwen2") for variant in WHERE_TIED_OR_BIASED]
IN_GPT2 = {
    "lora, ranks": {"rank_pattern": {"attn.c_proj": 2, "h.1.mlp.*": 7}},
    "lora, names": {"target_modules": ["c_attn"]},
    "lora, some": {"layers": [1], "exclude_modules": ["attn.c_proj"]},
    "lora, embeddings whole": {"modules_to_save": ["wte"]},
}
"""Where its layers have other names."""


def spec(folder, variant, **sections):
    values = IN_GPT2.get(variant, VARIANTS[variant]) if folder.name == "gpt2" else VARIANTS[variant]
    base = {
        "model": {"name": str(folder)},
        "quantization": {"kind": "none"},
        "data": {"datasets": ["one", "two"], "max_length": 64},
        "method": {"kind": variant.partition(",")[0], **values},
    }
    return parse(TrainSpec, base | sections)


@cache
def loaded(folder, labels):
    kind = AutoModelForCausalLM if labels is None else AutoModelForSequenceClassification
    return kind.from_pretrained(folder, **({} if labels is None else {"num_labels": labels}))


def attached(spec, folder, labels=None):
    """The method, and the model with it on, as a run has them."""
    tokenizer = tokenizer_of(str(folder))
    rows = ({"input_ids": torch.tensor([[1, 5, 9]]), "attention_mask": torch.ones(1, 3)} for _ in range(3))
    task = "CAUSAL_LM" if labels is None else "SEQ_CLS"
    context = Context(spec, folder, tokenizer.ids, lambda count: rows, task)
    method = STAGES[spec.stage.kind].method(spec, tuning(spec.method))
    return method, method.attach(copy.deepcopy(loaded(folder, labels)), context)


def reported(method, model):
    trainable, total = parameter_counts(model)
    return method.count(model) if method.count else trainable, total


def saved_bytes(folder):
    """Of the tensors in a folder's weights."""
    found = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found += sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118 - it is no mapping
    return found


@pytest.mark.parametrize("variant, kind", CASES)
def test_the_count_is_what_the_run_reports_and_the_size_what_it_writes(tiny, tmp_path, kind, variant):
    asked = spec(tiny(kind), variant)
    try:
        count = counting.count(asked)
    except SpecError:
        with pytest.raises(SpecError):  # the method itself refuses it too
            attached(asked, tiny(kind))
        return
    method, model = attached(asked, tiny(kind))
    assert (count.trainable, count.total) == reported(method, model)
    if variant != "adalora":  # which ranks are left is known once it has trained
        method.save(model, tmp_path / "saved")
        assert count.bytes_on_disk == saved_bytes(tmp_path / "saved")


def test_every_method_is_counted():
    assert {variant.partition(",")[0] for variant in VARIANTS} == set(kinds("method")) == set(TUNINGS)


@pytest.mark.parametrize(
    "variant, stage",
    [(variant, {}) for variant in ("lora", "vera", "ln_tuning", "full")]
    + [("lora", {"head": "adapter", "head_bias": True}), ("lora, dora", {"head": "adapter"})],
)
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_classifier_s_head_trains_too(tiny, tmp_path, kind, variant, stage):
    asked = spec(tiny(kind), variant, stage={"kind": "classify", **stage})
    method, model = attached(asked, tiny(kind), labels=3)
    count = counting.count(asked, labels=3)
    assert (count.trainable, count.total) == reported(method, model)
    method.save(model, tmp_path / "saved")
    assert count.bytes_on_disk == saved_bytes(tmp_path / "saved")


def test_a_reward_model_has_one_output(tiny):
    reward = counting.count(spec(tiny(), "lora", stage={"kind": "reward"}))
    classify = counting.count(spec(tiny(), "lora", stage={"kind": "classify"}), labels=2)
    assert classify.trainable - reward.trainable == 64


def test_labels_are_counted_in_the_datasets(studio_home, tiny, tmp_path):
    from studio.data import registry

    path = tmp_path / "mail.jsonl"
    path.write_text("".join(json.dumps({"text": f"t{n}", "label": "abc"[n % 3]}) + "\n" for n in range(9)))
    name = registry.add(path, "mail").name
    classify = {"stage": {"kind": "classify"}, "data": {"datasets": [name]}}
    assert counting.count(spec(tiny(), "lora", **classify)) == counting.count(
        spec(tiny(), "lora", stage={"kind": "classify"}), labels=3
    )
    with pytest.raises(DataError, match=r"Set data\.datasets"):
        counting.count(spec(tiny(), "lora", stage={"kind": "classify"}, data={"datasets": []}))


def test_the_bundled_model_is_counted_before_it_is_there(studio_home):
    count = counting.count(TrainSpec())
    assert (count.trainable, count.total) == (4_884_480, 134_515_008 + 4_884_480)
    assert count.targets == 210 and count.bytes_on_disk == 4 * 4_884_480


def test_peft_counts_the_same_on_the_bundled_model_s_shapes():
    from transformers import LlamaConfig, LlamaForCausalLM

    from studio.engine.counting import bundled

    asked = TrainSpec()
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**bundled.CONFIG))
        context = Context(asked, None, lambda text: [], lambda count: iter(()))
        model = tuning(asked.method).attach(model, context)
    count = counted(asked, bundled.shapes())
    assert (count.trainable, count.total) == parameter_counts(model)


def test_gpt2_with_its_attention_split_trains_as_many_as_the_book_says():
    """The figures are those of appendix E of Raschka's book, with LoRA of rank 16 on all linear layers."""
    asked = parse(
        TrainSpec,
        {
            "quantization": {"kind": "none"},
            "method": {"rank": 16, "alpha": 16, "split_fused": True},
            "stage": {"kind": "classify", "head": "adapter", "head_bias": True},
        },
    )
    shapes = gpt2_124m()
    assert shapes.with_labels(2, bias=True).total == 124_441_346
    assert counted(asked, shapes, labels=2).trainable == 2_666_528


def gpt2_124m():
    sizes = {"attn.c_attn": (768, 2304), "attn.c_proj": (768, 768), "mlp.c_fc": (768, 3072), "mlp.c_proj": (3072, 768)}
    header = {"wte.weight": (50257, 768), "wpe.weight": (1024, 768), "ln_f.weight": (768,), "ln_f.bias": (768,)}
    for number in range(12):
        layer = f"h.{number}"
        header |= {f"{layer}.{name}.weight": size for name, size in sizes.items()}
        header |= {f"{layer}.{name}.bias": (size[1],) for name, size in sizes.items()}
        header |= {f"{layer}.{norm}.{part}": (768,) for norm in ("ln_1", "ln_2") for part in ("weight", "bias")}
        header[f"{layer}.attn.bias"] = (1, 1, 1024, 1024)
    return from_header("gpt2", {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12}, header)


def test_neither_torch_nor_peft_is_needed_to_count(studio_home):
    code = (
        "import sys; from studio.engine import counting; from studio.specs import TrainSpec; "
        "counting.count(TrainSpec()); print({'torch', 'peft', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_second_count_takes_no_time(studio_home):
    from time import perf_counter

    asked = TrainSpec()
    counting.count(asked)
    begin = perf_counter()
    for _ in range(10):
        counting.count(asked)
    assert perf_counter() - begin < 0.5  # of 10; some 10 ms here


def test_all_weights_of_the_header_are_in_the_total(tiny):
    with safe_open(tiny("gpt2") / "model.safetensors", "pt") as file:
        sizes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 - it is no mapping
    assert counting.shapes_of(str(tiny("gpt2"))).total == sum(map(prod, sizes))
