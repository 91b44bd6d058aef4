"""A model folder with a tokenizer and nothing else: every byte a token, and three special ones. Not here: any test."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from studio.home import SHIPPED_TEMPLATES

SPECIAL = ("<|im_start|>", "<|im_end|>", "<s>")


def tiny_model(folder: Path) -> Path:
    """Write the folder. Its own template is ChatML; it has no weights, so it can only be looked at."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIAL))
    backend.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    settings = {"bos_token": "<s>", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    chatml = (SHIPPED_TEMPLATES / "chatml.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(chatml, encoding="utf-8")
    return folder
