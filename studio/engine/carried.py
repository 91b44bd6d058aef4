"""What travels with an export beside its weights: the tokenizer, the template, and the tokens that end an answer.

All three as the run had them, in the files that plain transformers reads, and read back before it is said that they are
the same. Not here: weights (studio.engine.exporters).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
from transformers import AutoTokenizer, GenerationConfig

from studio.data.example import Message
from studio.errors import TemplateError
from studio.events import Emit, Note
from studio.templates import Template, TextTokenizer, generation_prompt, stop_tokens
from studio.templates.rendering import as_values

TOKENIZER_CLASS = "PreTrainedTokenizerFast"
"""The one that reads tokenizer.json as it is, under a name that transformers 4 knows too."""
_ITS_OWN = ("auto_map", "is_local", "local_files_only", "backend")
"""Settings of a tokenizer that mean something only where it lay before."""

_PROBES = (
    (Message("user", "Who are you? 你是谁？"),),
    (Message("system", "Be brief."), Message("user", "Who are you?")),
    (Message("user", "Hello"), Message("assistant", "Hi, how are you?"), Message("user", "  Fine.\n")),
)


def write_tokenizer(
    folder: Path, tokenizer: Any, text_tokenizer: TextTokenizer, template: Template, system: str | None, emit: Emit
) -> None:
    """The tokenizer with the chat template of a run, which knows the run's system text too.

    If plain transformers reads from the folder what differs from training, a note says so.
    """
    tokenizer.chat_template = template.portable_with(system)
    tokenizer.save_pretrained(folder)
    config = folder / "tokenizer_config.json"
    values = json.loads(config.read_text(encoding="utf-8"))
    kept = {key: value for key, value in values.items() if key not in _ITS_OWN}
    kept |= {"tokenizer_class": TOKENIZER_CLASS, "model_input_names": list(tokenizer.model_input_names)}
    config.write_text(json.dumps(kept, ensure_ascii=False, indent=2), encoding="utf-8")
    if not all(_reads_the_same(folder, text_tokenizer, template, system)):
        emit(
            Note(
                text=f"transformers writes the template '{template.name}' from this export otherwise than it was "
                "trained. Served by other programs, answers may differ; the studio's own chat is not concerned."
            )
        )


def end_answers(settings: GenerationConfig, template: Template, text_tokenizer: TextTokenizer, pad: int | None) -> None:
    """Make generation stop where the run's answers end, and take the most likely token each time."""
    stop = stop_tokens(template, text_tokenizer)
    if stop:
        settings.eos_token_id = stop if len(stop) > 1 else stop[0]
    settings.pad_token_id = pad
    # sampling settings of the base would make two identical models answer differently
    settings.temperature = settings.top_p = settings.top_k = None
    settings.do_sample = False


def generation_of(base: Path) -> GenerationConfig:
    """The base's own settings for generation, or those that hold where it has none."""
    if (base / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(base, local_files_only=True)
    return GenerationConfig()


def _reads_the_same(folder: Path, text_tokenizer: TextTokenizer, template: Template, system: str | None) -> list[bool]:
    """For each probe that the template takes, whether transformers makes the same tokens of it."""
    plain = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    same = []
    for probe in _PROBES:
        try:
            wanted = generation_prompt(probe, template, text_tokenizer, system)
        except TemplateError:
            continue
        try:
            found = plain.apply_chat_template(
                as_values(probe), add_generation_prompt=True, tokenize=True, return_dict=False
            )
        except jinja2.TemplateError:
            found = None
        same.append(found == wanted)
    return same
