"""A copy of a model with an embedding for each token: `python -m studio.engine.models.resize FOLDER NEW_FOLDER`.

The new rows begin as the mean of the others, so they mean nothing until they are trained: by full fine-tuning, or with
embed_tokens and lm_head in method.modules_to_save. Not here: noticing that some are missing (load).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from transformers import AutoModelForCausalLM

from studio.engine.models.resolve import resolve
from studio.errors import ModelError, StudioError
from studio.templates import TextTokenizer

TOKENIZER = ("tokenizer*.json", "special_tokens_map.json", "*.jinja", "merges.txt", "vocab.txt", "tokenizer.model")


def resize(folder: Path, target: Path) -> int:
    """Write the copy. Returns: how many tokens it has embeddings for, never fewer than before.

    Raises: ModelError: the model cannot be used, or the target exists.
    """
    if target.exists():
        raise ModelError(f"{target} exists already. Name another folder.")
    folder = resolve(str(folder.absolute()), progress=lambda *_: None)
    needed = max(TextTokenizer.from_folder(folder).backend.get_vocab().values()) + 1
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", local_files_only=True, use_safetensors=True, trust_remote_code=False
    )
    rows = max(needed, model.get_input_embeddings().weight.shape[0])
    model.resize_token_embeddings(rows)
    model.save_pretrained(target)
    for path in (path for pattern in TOKENIZER for path in folder.glob(pattern)):
        shutil.copyfile(path, target / path.name)
    return rows


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("python -m studio.engine.models.resize FOLDER NEW_FOLDER", file=sys.stderr)
        return 2
    try:
        rows = resize(Path(arguments[0]), Path(arguments[1]))
    except StudioError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{arguments[1]} has embeddings for {rows} tokens.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
