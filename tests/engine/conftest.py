"""Tiny models with a real tokenizer, made on the spot: two layers, a few seconds of training."""

import json
from functools import cache
from pathlib import Path

import pytest

from studio.engine.models import arithmetic
from studio.home import CHECKOUT, SHIPPED_DATA, SHIPPED_TEMPLATES

VOCABULARY = 6400


def make(kind: str, folder: Path, *, hidden: int = 64, seed: int = 0) -> Path:
    """A random two-layer model of an architecture, saved with a tokenizer and ChatML as its template."""
    import torch
    from transformers import (
        Gemma2Config,
        Gemma2ForCausalLM,
        GemmaConfig,
        GemmaForCausalLM,
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        MistralConfig,
        MistralForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

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
    elif kind == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**wide, **shared, head_dim=16))
    elif kind == "gemma":
        model = GemmaForCausalLM(GemmaConfig(**wide, **shared, head_dim=16))
    elif kind == "gemma2":
        model = Gemma2ForCausalLM(Gemma2Config(**wide, **shared, head_dim=16))
    elif kind == "mistral":  # whose layers see no further than a window
        model = MistralForCausalLM(MistralConfig(**wide, **shared, head_dim=16, sliding_window=12))
    else:
        model = LlamaForCausalLM(LlamaConfig(**wide, **shared))
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer(), encoding="utf-8")
    settings = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "chat_template.jinja").write_text((SHIPPED_TEMPLATES / "chatml.jinja").read_text("utf-8"), "utf-8")
    return folder


@cache
def tokenizer() -> str:
    """tokenizer.json of a byte-level BPE trained on the shipped sets, filled up to the vocabulary of the models."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [*sorted(SHIPPED_DATA.glob("*_*.*")), CHECKOUT / "LICENSE"]
    backend.train_from_iterator((path.read_text("utf-8") for path in texts), trainer)
    # so that whatever a random model says is text
    missing = VOCABULARY - backend.get_vocab_size()
    backend.add_tokens([AddedToken(f"⟨{number}⟩", normalized=False) for number in range(missing)])
    return backend.to_str()


@pytest.fixture(autouse=True)
def one_precision(monkeypatch):
    """What is "auto" is fp32 on every CPU, however fast it multiplies bf16 and whatever else runs just then."""
    monkeypatch.setattr(arithmetic, "bf16_gain", lambda: 0.5)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """tiny("llama" | "qwen2" | "gpt2" | …) -> its folder; made once a session."""
    made: dict[str, Path] = {}

    def get(kind: str = "llama") -> Path:
        if kind not in made:
            made[kind] = make(kind, tmp_path_factory.mktemp(kind) / kind)
        return made[kind]

    return get


@pytest.fixture
def dataset(studio_home, tmp_path):
    """A small registered set of conversations, by name."""
    from studio.data import registry

    rows = [
        {"instruction": f"What is {a} plus {b}?", "input": "", "output": f"{a} plus {b} is {a + b}."}
        for a in range(1, 7)
        for b in range(1, 5)
    ]
    path = tmp_path / "sums.json"
    path.write_text(json.dumps(rows))
    return registry.add(path, "sums").name
