"""A base model, its tokenizer and its adapters, from folders that `resolve` has checked.

Not here: finding or fetching them (resolve, bundled), and wrapping with a new adapter (studio.engine.methods).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from studio.engine.models.narrow import narrow, stored_half
from studio.engine.models.quantize import quantization_config
from studio.engine.models.resolve import allows_code, identity
from studio.errors import ModelError
from studio.specs import QuantizationSpec
from studio.templates import Template, TextTokenizer
from studio.templates import resolve as resolve_template
from studio.templates.library import shipped

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
RECORD = "studio.json"
"""Beside an adapter's weights: which base it belongs to, which PEFT itself does not ask, and the template as it was."""


def device() -> torch.device:
    """The first CUDA device, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def load_tokenizer(folder: Path) -> tuple[Any, TextTokenizer]:
    """transformers' tokenizer and the studio's view of the very same one.

    The second is what the preview uses too, so that page and trainer cannot disagree. The first is made of it and not
    by AutoTokenizer: the classes of transformers 5 build some tokenizers anew from their vocabulary, without what their
    tokenizer.json says of spaces (Yi), and others want to run code out of the folder (InternLM 2).
    Raises: ModelError: there is none, it is broken, or it has tokens that the model has no embedding for.
    """
    text_tokenizer = TextTokenizer.from_folder(folder)
    _check_embedded(folder, text_tokenizer)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(
        folder, tokenizer_object=text_tokenizer.backend, local_files_only=True
    )
    # the class itself would also give token_type_ids, which models that write text do not take
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, text_tokenizer


def load_base(
    folder: Path,
    *,
    dtype: str,
    quantization: QuantizationSpec | None = None,
    labels: Sequence[str] | None = None,
    trained: bool = False,
    narrowed: bool = False,
) -> Any:
    """The base with its weights in `dtype` (fp32, bf16, fp16), quantised if asked, on `device()`.

    labels: of a model that classifies instead of writing: its head, one output a label, starts at random. trained: the
    folder holds a model that was trained whole, with its head. narrowed: fp32 whose matrices stay in the 16 bits of
    their file, where it has them (studio.engine.models.narrow).
    Raises: ModelError: the weights cannot be loaded, with the library's own words, or lack a tensor.
    """
    kind: Any = AutoModelForCausalLM if labels is None else AutoModelForSequenceClassification
    place = device()
    options: dict[str, Any] = {"device_map": {"": place}} if place.type == "cuda" else {}
    if quantization is not None and quantization.kind != "none":
        options["quantization_config"] = quantization_config(quantization, _compute_dtype(dtype))
    if labels is not None:
        options |= {"id2label": dict(enumerate(labels)), "label2id": {name: at for at, name in enumerate(labels)}}
    options |= {"local_files_only": True, "use_safetensors": True, "trust_remote_code": allows_code(folder)}
    half = stored_half(folder) if narrowed else None
    try:
        model, found = kind.from_pretrained(folder, dtype=half or DTYPES[dtype], output_loading_info=True, **options)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise ModelError(f"The model in {folder} cannot be loaded: {_first_line(error)}") from error
    missing = sorted(found["missing_keys"])  # which transformers starts at random
    if labels is not None and not trained:  # so it shall be with the head of a classifier, and with nothing else
        missing = [name for name in missing if name.startswith(f"{model.base_model_prefix}.")]
    if missing:
        raise ModelError(f"The weights in {folder} lack {len(missing)} tensors, such as {missing[0]}. Get them again.")
    if half is not None:
        narrow(model)
    if labels is None:
        _read_whole(model.get_output_embeddings())
    return model


def _check_embedded(folder: Path, tokenizer: TextTokenizer) -> None:
    """A token without an embedding would end a run with an index error in the middle."""
    rows = _rows(folder)
    beyond = {word: at for word, at in tokenizer.backend.get_vocab().items() if rows is not None and at >= rows}
    if beyond:
        word = min(beyond, key=beyond.__getitem__)
        raise ModelError(
            f"The tokenizer in {folder} has tokens up to number {max(beyond.values())}, such as {word!r}, but the "
            f"model has embeddings for {rows} only. Use the tokenizer that belongs to it, or make a copy with larger "
            f"embeddings: python -m studio.engine.models.resize {folder} NEW_FOLDER"
        )


def _rows(folder: Path) -> int | None:
    """How many tokens the model has embeddings for, as its config says; None for a tokenizer without a model."""
    if not (folder / "config.json").exists():
        return None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / 'config.json'} cannot be read: {error}. Get the model again.") from error
    inner = config.get("text_config")
    return config.get("vocab_size", inner.get("vocab_size") if isinstance(inner, dict) else None)


def _read_whole(head: torch.nn.Module | None) -> None:
    """Give the output layer its input in one piece.

    Generation begins with the last position of each prompt, a view with gaps, for which torch 2.13 copies weights that
    are frozen, as under an adapter, once a prompt: on a CPU that took longer than reading the prompts.
    """
    if head is not None:
        head.register_forward_pre_hook(lambda _, given: (given[0].contiguous(), *given[1:]))


def record_origin(folder: Path, base: Path, name: str, template: Template, **facts: Any) -> None:
    """Write beside trained weights what they were trained on and with, and make an adapter name its base, not a path.

    facts: further entries of the record, such as the labels of a head. A folder without an adapter_config.json holds a
    whole model, as full fine-tuning leaves it.
    """
    record = {"base": name, "identity": identity(base), "template": asdict(template), **facts}
    (folder / RECORD).write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    config = folder / "adapter_config.json"
    if config.is_file():
        values = json.loads(config.read_text(encoding="utf-8"))
        config.write_text(json.dumps(values | {"base_model_name_or_path": name}, indent=2), encoding="utf-8")


def recorded(folder: Path, fact: str) -> Any:
    """An entry of the record beside trained weights; None where there is none."""
    try:
        return json.loads((folder / RECORD).read_text(encoding="utf-8")).get(fact)
    except (OSError, ValueError, AttributeError):
        return None


def check_base(adapter: Path, base: Path) -> None:
    """Refuse an adapter that was trained on another base, which PEFT would load without a word.

    Raises: ModelError: the recorded base is another one.
    """
    record = adapter / RECORD
    try:
        recorded = json.loads(record.read_text(encoding="utf-8"))
        name, wanted = recorded["base"], recorded["identity"]
    except FileNotFoundError:
        return  # not trained here; shapes are all that can be compared
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelError(
            f"{record} cannot be read ({error}), so the base of this adapter is not known. Use another checkpoint."
        ) from error
    if wanted != identity(base):
        raise ModelError(
            f"The adapter {adapter} belongs to {name}, and the weights in {base} are not those it was "
            "trained on. Use the base it was trained on, or train again."
        )


def template_of(adapter: Path, name: str, tokenizer: TextTokenizer) -> Template:
    """The template that an adapter was trained with, as it was then: a file of that name may say something else by now.

    name: for an adapter that holds none, since it was not trained here. Raises: TemplateError.
    """
    try:
        values = json.loads((adapter / RECORD).read_text(encoding="utf-8"))["template"]
        kept = Template(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
    except (OSError, ValueError, LookupError, TypeError):
        return resolve_template(name, tokenizer)
    # only files of ours are trusted, whatever an adapter says of itself
    return kept if kept.origin != "shipped" or kept in shipped() else replace(kept, origin="own")


def _compute_dtype(dtype: str) -> torch.dtype:
    """What 4-bit weights become for a product: bf16 as in the QLoRA paper, but on a CPU that multiplies fp32 faster."""
    return torch.bfloat16 if dtype == "fp32" and device().type == "cuda" else DTYPES[dtype]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
