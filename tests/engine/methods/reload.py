"""A process of its own that knows torch, transformers and PEFT, and nothing of the studio: loads what a run left.

It reads one JSON object a line from stdin and answers with one a line. A method of the studio's own has to be known to
PEFT before it can load it, so the request may name the module that registers it. Not here: what the answers must be.
"""

import importlib
import json
import sys

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError, OSError)
QUANTISED = {
    "none": None,
    "nf4": BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,  # as a run in fp32 has it on a CPU
    ),
    "int8": BitsAndBytesConfig(load_in_8bit=True),
}


def plain(folder, quantization):
    options = {"quantization_config": QUANTISED[quantization]} if QUANTISED[quantization] else {}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    for module in model.modules():
        # the kernels that training used; those for inference round otherwise
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model.eval()


def opened(asked):
    if asked["whole"]:
        return plain(asked["folder"], "none")
    return PeftModel.from_pretrained(plain(asked["base"], asked["quantization"]), asked["folder"]).eval()


@torch.no_grad()
def logits(model, ids, **options):
    return model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), **options).logits[0].float()


@torch.no_grad()
def greedy(model, ids, count, **options):
    """By transformers' own loop."""
    prompt = torch.tensor([ids])
    model.generation_config.eos_token_id = None
    said = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=count,
        do_sample=False,
        repetition_penalty=1.0,
        **options,
    )
    return said[0, len(ids) :].tolist()


def difference(one, other):
    return float((one - other).abs().max() / other.abs().max().clamp(min=1.0))


@torch.no_grad()
def mixed(model, asked, ids):
    """How far two adapters and the base in one batch are from the same three one by one."""
    model.load_adapter(asked["folder"], "other")
    generator = torch.Generator().manual_seed(0)
    with model.disable_adapter():
        base = logits(model, ids)
    first, other = logits(model, ids), base
    for _ in range(8):  # until the two are far enough apart to be told from each other
        for name, tensor in model.named_parameters():
            if ".other" in name:
                tensor.add_(torch.randn(tensor.shape, generator=generator) * (tensor.abs().mean() + 1e-3))
        model.set_adapter("other")
        other = logits(model, ids)
        model.set_adapter("default")
        if difference(first, other) > 1e-2:
            break
    else:
        raise ValueError("two adapters answer too much alike to be told apart")
    alone = [first, other, base]
    rows = torch.tensor([ids] * 3)
    names = ["default", "other", "__base__"]
    together = model(input_ids=rows, attention_mask=torch.ones_like(rows), adapter_names=names).logits.float()
    return max(difference(together[row], alone[row]) for row in range(3))


def attempt(action):
    """What an action measures, or why it cannot: this process outlives whatever goes wrong in one request."""
    try:
        return action(), None
    except FAILURES as error:
        return None, f"{type(error).__name__}: {error}".splitlines()[0][:300]


def answer(asked):
    ids, options = asked["ids"], {"task_ids": torch.tensor([0])} if asked["tasks"] else {}
    if asked["register"]:
        importlib.import_module(asked["register"])
    model = opened(asked)
    said = logits(model, ids, **options)
    if not asked["checks"]:
        save_file({"logits": said.contiguous()}, asked["out"])
        return {"tokens": greedy(model, ids, asked["count"], **options)}
    merged = attempt(lambda: difference(logits(model.merge_and_unload(), ids), said))
    return {"merge": merged, "mixed": attempt(lambda: mixed(opened(asked), asked, ids))}


if __name__ == "__main__":
    stdout, sys.stdout = sys.stdout, sys.stderr  # whatever the libraries print
    for line in sys.stdin:
        found, fault = attempt(lambda line=line: answer(json.loads(line)))
        print(json.dumps({"fault": fault} if fault else found), file=stdout, flush=True)
