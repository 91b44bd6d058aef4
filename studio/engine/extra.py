"""The `trainer:` section of a spec, held against the real config class of its stage: names, types and values.

What the studio sets by a field of its own, or cannot allow, is refused with what to do instead. Not here: the arguments
that all stages share (studio.engine.stages.setup).
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError

from studio.errors import Fault, unknown

OURS: Mapping[str, str] = {
    "learning_rate": "training.learning_rate",
    "num_train_epochs": "training.epochs",
    "max_steps": "training.max_steps",
    "per_device_train_batch_size": "training.batch_size",
    "gradient_accumulation_steps": "training.accumulation",
    "lr_scheduler_type": "training.scheduler",
    "warmup_steps": "training.warmup",
    "warmup_ratio": "training.warmup",
    "weight_decay": "training.weight_decay",
    "max_grad_norm": "training.max_grad_norm",
    "optim": "training.optimizer",
    "bf16": "training.precision",
    "fp16": "training.precision",
    "gradient_checkpointing": "training.gradient_checkpointing",
    "activation_checkpointing": "training.gradient_checkpointing",
    "save_strategy": "training.save_steps",
    "save_steps": "training.save_steps",
    "save_total_limit": "training.save_total_limit",
    "load_best_model_at_end": "training.keep_best",
    "metric_for_best_model": "training.keep_best",
    "greater_is_better": "training.keep_best",
    "report_to": "training.report_to",
    "seed": "training.seed",
    "data_seed": "data.seed",
    "shuffle_dataset": "data.shuffle",
    "max_length": "data.max_length",
    "truncation_mode": "data.truncation",
    "assistant_only_loss": "template.supervise",
    "completion_only_loss": "template.supervise",
    "chat_template_path": "template.name",
    "eval_strategy": "evaluation.steps",
    "eval_steps": "evaluation.steps",
    "eval_delay": "evaluation.steps",
    "do_eval": "data.validation_share",
}
"""Arguments that have a field of their own."""

IN_STAGE: Mapping[str, tuple[str, ...]] = {
    "label_smoothing_factor": ("label_smoothing",),
    "loss_type": ("loss", "grpo_loss", "preference_loss"),
    "center_rewards_coefficient": ("center_rewards",),
    "num_generations": ("generations",),
    "num_iterations": ("updates",),
}
"""Arguments that some stages have as a field under another name."""

SENDS = "would send things away. Export the run, and upload the folder yourself."
DEVICES = "is for several devices, which whatever starts the run sets up."
RESUME = "would make a resumed run differ from an uninterrupted one. Leave it out."
EACH_STEP = "cannot be changed: each step is told once, as it was. Leave it out."
ROWS = "cannot be changed: the rows are written and tokenised by data and template. Leave it out."
APART = "cannot be changed: only so are rows of one sequence kept apart. Leave it out."
REFUSED: Mapping[str, str] = {
    "output_dir": "is the run's own folder. Leave it out.",
    "trackio_space_id": SENDS,
    "trackio_bucket_id": SENDS,
    "trackio_static_space_id": SENDS,
    "resume_from_checkpoint": "goes by itself: resume the run, or name another one in start.adapters.",
    "auto_find_batch_size": "changes the effective batch size unasked. Set training.batch_size.",
    "use_cpu": "is set outside: hide the GPU with CUDA_VISIBLE_DEVICES= to train on the CPU.",
    "model_init_kwargs": "cannot be set: the base is loaded by model and quantization. Leave it out.",
    "trust_remote_code": "would run code out of a model's folder. Choose a model of a type that transformers knows.",
    "deepspeed": DEVICES,
    "local_rank": DEVICES,
    "parallelism_config": DEVICES,
    "accelerator_config": DEVICES,
    "save_only_model": RESUME,
    "save_on_each_node": DEVICES,
    "enable_jit_checkpoint": RESUME,
    "ignore_data_skip": RESUME,
    "restore_callback_states_from_checkpoint": RESUME,
    "disable_tqdm": EACH_STEP,
    "log_level": EACH_STEP,
    "log_level_replica": EACH_STEP,
    "do_train": "is what a run does. Leave it out.",
    "do_predict": "is an evaluation. Run one when the run has finished.",
    "remove_unused_columns": ROWS,
    "label_names": ROWS,
    "eos_token": ROWS,
    "pad_token": ROWS,
    "eval_packing": ROWS,
    "packing_strategy": APART,
    "padding_free": APART,
}
FAMILIES: Mapping[str, str] = {
    "push_to_hub": SENDS,
    "hub_": SENDS,
    "log_completions_hub": SENDS,
    "fsdp": DEVICES,
    "ddp_": DEVICES,
    "logging_": EACH_STEP,
    "dataset_": ROWS,
    "vllm_server": "would ask another machine for answers. Leave it out.",
}
"""Refused by how a name begins."""


def read_extra(values: Mapping[str, Any], config: type, stage: Any) -> tuple[dict[str, Any], list[Fault]]:
    """The arguments as the config class takes them, such as a number for "2e-4", and all that is wrong with them.

    Args: config: a dataclass, TrainingArguments or a child of it. stage: the spec's stage.
    """
    read, faults = {}, []
    hints = typing.get_type_hints(config)
    known = {each.name for each in dataclasses.fields(config) if each.init}
    for name, value in values.items():
        field = f"trainer.{name}"
        if reason := _refusal(name, stage):
            faults.append(Fault(field, reason))
        elif name not in known:
            faults.append(
                Fault(field, unknown("argument", name, (each for each in known if not _refusal(each, stage))))
            )
        elif wrong := _wrong(hints[name], value):
            faults.append(Fault(field, wrong))
        else:
            read[name] = _adapter(hints[name]).validate_python(value)
            faults += _as_the_library_says(config, name, read[name])
    return read, faults


def _refusal(name: str, stage: Any) -> str | None:
    """Why an argument cannot be given, and what to do instead; None: it can be."""
    own = type(stage).model_fields
    inside = next((field for field in (name, *IN_STAGE.get(name, ())) if field in own), None)
    if inside:
        return f"has a field of its own. Set stage.{inside} instead."
    if name in OURS:
        return f"has a field of its own. Set {OURS[name]} instead."
    return REFUSED.get(name) or next((why for start, why in FAMILIES.items() if name.startswith(start)), None)


def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))


def _wrong(hint: Any, value: Any) -> str | None:
    try:
        _adapter(hint).validate_python(value)
    except ValidationError as error:
        said = {each["msg"][0].lower() + each["msg"][1:] for each in error.errors(include_url=False)}
        return f"{' or '.join(sorted(said))}, but is {value!r:.80}."
    return None


def _as_the_library_says(config: type, name: str, value: Any) -> Iterator[Fault]:
    """What the config class itself has against a value, in its own words."""
    try:
        config(
            output_dir="unused", use_cpu=not torch.cuda.is_available(), bf16=False, report_to="none", **{name: value}
        )
    except (ValueError, TypeError, ImportError) as error:
        yield Fault(f"trainer.{name}", f"{(str(error).splitlines() or ['is refused'])[0][:300].removesuffix('.')}.")
