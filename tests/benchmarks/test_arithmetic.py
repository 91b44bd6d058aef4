import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from tests.benchmarks.arithmetic import flops, shapes_of

TOKENS, RANK = 192, 4


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_the_formula_counts_what_torch_counts(tiny, kind):
    """Reference: torch's counter, over a row whose every position is supervised. Eager attention computes the whole
    square, of which the formula counts half."""
    model = AutoModelForCausalLM.from_pretrained(tiny(kind), attn_implementation="eager")
    model.enable_input_require_grads()
    model = get_peft_model(model, LoraConfig(r=RANK, target_modules="all-linear"))
    ids = torch.arange(TOKENS)[None]
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    parts = flops(shapes_of(tiny(kind)), [(TOKENS, TOKENS)], rank=RANK)
    assert counter.get_total_flops() == pytest.approx(sum(parts.values()) + parts["attention"], rel=0.002)


def test_a_head_is_needed_where_something_is_supervised(tiny):
    shapes = shapes_of(tiny())
    all_of_it, half = (flops(shapes, [(TOKENS, learned)], rank=RANK) for learned in (TOKENS, TOKENS // 2))
    assert half["head"] * 2 == all_of_it["head"]
    assert half["linear"] == all_of_it["linear"]
