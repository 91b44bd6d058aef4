"""A model of a known shape with random weights: `python -m tests.benchmarks.random_model SIZE FOLDER`.

Speed and memory do not depend on what the weights are. It is made on the GPU where there is one. Not here: its
tokenizer, which the folder is given afterwards.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

QWEN2, LLAMA = "qwen2", "llama"
_QWEN = {
    "vocab_size": 151_936,
    "tie_word_embeddings": True,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32_768,
}
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny": (
        LLAMA,
        {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 49_152,
        },
    ),
    "0.5b": (
        QWEN2,
        {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, **_QWEN},
    ),
    "1.5b": (
        QWEN2,
        {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12, **_QWEN},
    ),
    "8b": (
        LLAMA,
        {
            "hidden_size": 4096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 128_256,
            "max_position_embeddings": 131_072,
        },
    ),
}
"""Shapes of Qwen 2.5 0.5B and 1.5B and of Llama 3.1 8B, and one to try the plumbing with."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def put_tokenizer(folder: Path, source: Path | None) -> None:
    """The files of a tokenizer: those of `source`, else of a small one that is trained on the spot."""
    if source is None:
        from tests.engine.conftest import make

        source = make(LLAMA, folder / "small")
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copy(source / name, folder / name)


def write(size: str, folder: Path) -> None:
    """config.json and weights in bf16."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    kind, shape = SIZES[size]
    config = (Qwen2Config if kind == QWEN2 else LlamaConfig)(**shape, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = (Qwen2ForCausalLM if kind == QWEN2 else LlamaForCausalLM)(config)
    model.save_pretrained(folder)


def main() -> None:
    write(sys.argv[1], Path(sys.argv[2]))
    print("{}")


if __name__ == "__main__":
    main()
