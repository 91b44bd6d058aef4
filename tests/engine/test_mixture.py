"""Several LoRA adapters in one batch: the very numbers that PEFT gives, in fewer kernels."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from studio.engine.held import BASE
from studio.engine.mixture import FEW, mixture_of

CONFIGS = {
    "a": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"},
    "b": {"r": 7, "lora_alpha": 7, "target_modules": ["q_proj", "down_proj"], "use_rslora": True},
    "c": {"r": 2, "lora_alpha": 1, "target_modules": ["v_proj", "up_proj"]},
}
ROWS = [BASE, "b", "a", "c", "a", BASE]


def config(**options):
    return LoraConfig(init_lora_weights=False, task_type="CAUSAL_LM", **options)


@pytest.fixture
def model(tiny):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny(), dtype=torch.float32)
    model = get_peft_model(model, config(**CONFIGS["a"]), adapter_name="a")
    for name in ("b", "c"):
        model.add_adapter(name, config(**CONFIGS[name]))
    return model.eval()


def logits(model, names, **more):
    ids = torch.arange(3, 3 + 5 * len(names)).view(len(names), 5)
    with torch.inference_mode():
        return model(input_ids=ids, **more).logits


def mixed(model, names):
    with mixture_of(model).within(names) as base:
        return logits(base, names)


@pytest.mark.parametrize("names", [ROWS, ["a"], [BASE], ["c", "b"], [BASE, "c"]], ids=str)
def test_rows_are_what_peft_gives_each_of_them(model, names):
    torch.testing.assert_close(mixed(model, names), logits(model, names, adapter_names=names), atol=1e-5, rtol=1e-5)


def test_rows_and_adapters_may_change_from_step_to_step(model):
    for names in (["a", "b"], ["b", "a"], ["b"], [BASE, "b"], ["c"], ["a", "c", "b"], ["c"]):
        wanted = logits(model, names, adapter_names=names)
        torch.testing.assert_close(mixed(model, names), wanted, atol=1e-5, rtol=1e-5)


def test_an_adapter_that_comes_later_takes_part(model):
    mixed(model, ["a"])
    model.add_adapter("d", config(r=3, target_modules=["o_proj"]))
    names = ["d", "a", BASE]
    torch.testing.assert_close(mixed(model, names), logits(model, names, adapter_names=names), atol=1e-5, rtol=1e-5)


def test_the_model_is_as_it_was_afterwards(model):
    before = logits(model, ["x"])
    mixed(model, ROWS)
    torch.testing.assert_close(logits(model, ["x"]), before, atol=0, rtol=0)
    with pytest.raises(RuntimeError), mixture_of(model).within(["a"]) as base:
        base(input_ids=torch.zeros(1, 3))  # no whole numbers
    torch.testing.assert_close(logits(model, ["x"]), before, atol=0, rtol=0)


def test_adapters_that_nobody_asks_for_are_put_away_when_there_are_many(model):
    for number in range(FEW + 2):
        model.add_adapter(f"n{number}", config(r=2, target_modules=["q_proj"]))
    mixture = mixture_of(model)
    mixed(model, [f"n{number}" for number in range(FEW + 2)])
    assert len(mixture._adapters) == FEW + 2
    mixed(model, ["a"])
    assert mixture._adapters == ("a",)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj"], "use_dora": True},
        {"target_modules": ["embed_tokens"]},
        {"target_modules": ["q_proj"], "lora_bias": True},
    ],
    ids=lambda options: str(list(options)[-1]),
)
def test_what_only_peft_can_compute_is_left_to_it(model, options):
    assert mixture_of(model) is not None
    model.add_adapter("other", config(r=2, **options))
    assert mixture_of(model) is None
