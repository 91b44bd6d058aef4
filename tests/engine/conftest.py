"""Tiny models with a real tokenizer, made on the spot: two layers, a few seconds of training."""

import shutil
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"
TOKENIZER = SHARED / "models" / "minimind2-small"
VOCABULARY = 6400


def make(kind: str, folder: Path, *, hidden: int = 64, seed: int = 0) -> Path:
    """A random two-layer model of an architecture, saved with MiniMind's tokenizer and chat template."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    shared = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    wide = {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    }
    if kind == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(n_embd=hidden, n_layer=2, n_head=4, n_positions=512, **shared))
    elif kind == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**wide, **shared, tie_word_embeddings=True))
    else:
        model = LlamaForCausalLM(LlamaConfig(**wide, **shared))
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(TOKENIZER / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """tiny("llama" | "qwen2" | "gpt2") -> its folder; made once a session."""
    made: dict[str, Path] = {}

    def get(kind: str = "llama") -> Path:
        if kind not in made:
            made[kind] = make(kind, tmp_path_factory.mktemp(kind) / kind)
        return made[kind]

    return get


@pytest.fixture
def dataset(studio_home, tmp_path):
    """A small registered set of conversations, by name."""
    import json

    from studio.data import registry

    rows = [
        {"instruction": f"What is {a} plus {b}?", "input": "", "output": f"{a} plus {b} is {a + b}."}
        for a in range(1, 7)
        for b in range(1, 5)
    ]
    path = tmp_path / "sums.json"
    path.write_text(json.dumps(rows))
    return registry.add(path, "sums").name
