"""Sequence classification over transformers' Trainer: a head on a text's last token learns to name its label.

Not here: the rows (studio.engine.rows.labelled), and what a trained one says (studio.engine.evaluation.classifying).
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainingArguments
from transformers.pytorch_utils import Conv1D

from studio.engine.evaluation.classifying import pad_token, padded
from studio.engine.methods import Context, Tuning
from studio.engine.methods.lora import HEAD
from studio.engine.methods.tuning import trainable
from studio.engine.stages.setup import Setup, arguments, train_in_fp32, tuned
from studio.specs import TrainSpec

_SAVED = f"base_model.model.{HEAD}"


def classify_trainer(setup: Setup) -> Trainer:
    """A trainer that is ready to train. Its `pad` is the token that fills batches up."""
    pad = pad_token(setup.model, setup.tokenizer)
    own = {
        "label_smoothing_factor": setup.spec.stage.label_smoothing,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
    }
    trainer = tuned(_Classifier, setup.tuning)(
        model=setup.model,
        args=TrainingArguments(**{**own, **arguments(setup)}),
        data_collator=lambda rows: _batch(rows, pad),
        train_dataset=setup.rows.train,
        eval_dataset=setup.rows.held,
        processing_class=setup.tokenizer,
        callbacks=list(setup.callbacks),
        compute_metrics=_accuracy,
    )
    trainer.pad = pad
    train_in_fp32(trainer.model)
    return trainer


def with_head(spec: TrainSpec, method: Tuning) -> Tuning:
    """What a method does to a model with a head, as the stage wants the head to learn.

    whole: as PEFT does it, which trains the head and saves it. adapter: the head's weights stay as they began, a LoRA
    beside them trains, and what is saved is the sum, as the head that plain PEFT puts in place of one that began at
    random.
    """
    if spec.stage.head == "whole":
        return method

    def attach(model: Any, context: Context) -> Any:
        if spec.stage.head_bias:
            setattr(model, HEAD, _with_bias(getattr(model, HEAD)))
        # told that it classifies, PEFT would train the head whole
        return method.attach(model, replace(context, task=None))

    def save(model: Any, folder: Path) -> None:
        method.save(model, folder)
        _save_head_whole(model.get_base_model(), folder)

    return replace(method, attach=attach, save=save, state=method.state or trainable)


class _Classifier(Trainer):
    """Also logs the tokens so far, and the share of right answers since the last log."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._tokens = self._right = self._rows = 0

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **options: Any) -> Any:
        labels = inputs["labels"]
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **options)
        if model.training:
            self._tokens += int(inputs["attention_mask"].sum())
            self._right += int((outputs.logits.detach().argmax(-1) == labels).sum())
            self._rows += len(labels)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
        if "loss" in logs and self._rows:
            logs |= {"num_tokens": float(self._tokens), "accuracy": self._right / self._rows}
            self._right = self._rows = 0
        super().log(logs, *args, **options)


def _batch(rows: list[dict[str, Any]], pad: int) -> dict[str, torch.Tensor]:
    labels = torch.tensor([row["labels"] for row in rows])
    return padded([row["input_ids"] for row in rows], pad) | {"labels": labels}


def _accuracy(told: Any) -> dict[str, float]:
    return {"accuracy": float((told.predictions.argmax(-1) == told.label_ids).mean())}


def _with_bias(head: Any) -> torch.nn.Linear:
    """The head with a bias of zero, which a LoRA leaves as it is, so that nothing is lost when it is saved without."""
    wider = torch.nn.Linear(head.in_features, head.out_features, device=head.weight.device, dtype=head.weight.dtype)
    wider.weight = head.weight
    torch.nn.init.zeros_(wider.bias)
    return wider


def _save_head_whole(model: Any, folder: Path) -> None:
    """Rewrite a saved adapter, so that its head is whole weights instead of an adapter of weights that are nowhere."""
    layer = copy.deepcopy(getattr(model, HEAD))
    layer.merge()
    weights = folder / "adapter_model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(weights).items() if not name.startswith(f"{_SAVED}.")}
    whole = layer.get_base_layer().weight.detach().float().contiguous()
    save_file(tensors | {f"{_SAVED}.weight": whole}, weights, metadata={"format": "pt"})
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = [name for name in config["target_modules"] if name != HEAD]
    config["modules_to_save"] = [*(config.get("modules_to_save") or []), HEAD]
    config["task_type"] = "SEQ_CLS"
    # the head, which is no such layer, made PEFT take it back
    config["fan_in_fan_out"] = any(isinstance(module, Conv1D) for module in model.modules())
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")
