"""RandLoRA's random matrices are written once, and plain PEFT still loads them."""

import subprocess
import sys

import torch
from peft import RandLoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from studio.engine.methods import saved_once

IDS = [[1, 5, 9, 4]]
PLAIN = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base, adapter, out = sys.argv[1:]
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
torch.save(model(torch.tensor({ids})).logits, out)
"""


def test_the_matrices_are_written_once_and_plain_peft_loads_them(tiny, tmp_path):
    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny()), RandLoraConfig(r=8, target_modules=["q_proj", "down_proj"])
    )
    assert isinstance(model.base_model, saved_once.SavedOnce)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
        model.base_model.randlora_B["default"].mul_(2)  # so that the seed alone would not bring them back
    model.save_pretrained(tmp_path / "adapter")
    names = [name for name in load_file(tmp_path / "adapter" / "adapter_model.safetensors") if "randlora_B" in name]
    assert names == ["base_model.randlora_B"]

    code, out = PLAIN.format(ids=IDS), tmp_path / "logits.pt"
    subprocess.run([sys.executable, "-c", code, str(tiny()), str(tmp_path / "adapter"), str(out)], check=True)
    expected = model.eval()(torch.tensor(IDS)).logits
    assert torch.equal(torch.load(out, weights_only=True), expected)
