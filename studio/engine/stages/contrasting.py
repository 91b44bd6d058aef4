"""What trl's trainers without a reference (ORPO, CPO) need to take rows that are tokens already.

Not here: the objectives (orpo, cpo), and the rows (studio.engine.rows.pairs).
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # else the next lines warn that their API may change

from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from studio.engine.stages.setup import Setup, arguments, train_in_fp32, tuned
from studio.templates.packed import IGNORED

__all__ = ["CPOConfig", "CPOTrainer", "Contrasting", "ORPOConfig", "ORPOTrainer", "contrasting_trainer"]


class Contrasting:
    """A part of a trainer: mix it in before trl's class."""

    _tokens_seen = 0

    def tokenize_row(self, feature: dict[str, list[int]], model: Any = None) -> dict[str, list[int]]:
        """The columns of trl's collator, of a row that is tokens already."""
        prompt = feature["prompt_ids"]
        columns = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
        for side in ("chosen", "rejected"):
            answer = feature[f"{side}_ids"]
            columns[f"{side}_input_ids"] = prompt + answer
            columns[f"{side}_attention_mask"] = [1] * (len(prompt) + len(answer))
            columns[f"{side}_labels"] = [IGNORED] * len(prompt) + answer
        return columns

    def compute_loss(self, model: Any, inputs: Any, *others: Any, **options: Any) -> Any:
        self._tokens_seen += sum(int(inputs[f"{side}_attention_mask"].sum()) for side in ("chosen", "rejected"))
        return super().compute_loss(model, inputs, *others, **options)  # type: ignore[misc]

    def log(self, logs: dict[str, float], *others: Any, **options: Any) -> None:
        if "loss" in logs:
            logs["num_tokens"] = self._tokens_seen
        super().log(logs, *others, **options)  # type: ignore[misc]


def contrasting_trainer(setup: Setup, kind: type, config: type, own: dict[str, Any]) -> Any:
    """A trainer of trl's kind that is ready to train. own: what the objective adds to its config."""
    shared = {
        "max_length": setup.spec.data.max_length,
        "remove_unused_columns": False,  # trl's collator has names of its own
    }
    trainer = tuned(kind, setup.tuning)(
        model=setup.model,
        args=config(**{**shared, **own, **arguments(setup)}),
        train_dataset=setup.rows.train,
        eval_dataset=setup.rows.held,
        processing_class=setup.tokenizer,
        callbacks=list(setup.callbacks),
    )
    train_in_fp32(trainer.model)
    return trainer
