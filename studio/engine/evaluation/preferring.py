"""How well a model prefers the answers that it should, before a run and after it, by its trainer's own validation.

Not here: what is compared on the way (the trainer itself), and finished runs (studio.engine.evaluation.pairs).
"""

from __future__ import annotations

from typing import Any

from studio.engine.callbacks import figures
from studio.engine.rows.conversations import Rows


def examine(trainer: Any, rows: Rows) -> dict[str, dict[str, float]]:
    """Loss, margin, accuracy and the like on the rows held out, as the model is now; empty where there are none.

    Nobody watches, so that it is no validation of the run: neither its chart nor its early stopping knows of it.
    """
    if rows.held is None:
        return {}
    handler = trainer.callback_handler
    watching, handler.callbacks = handler.callbacks, []
    history = list(trainer.state.log_history)
    try:
        found = trainer.evaluate()
    finally:
        handler.callbacks, trainer.state.log_history = watching, history
    scores = {key.removeprefix("eval_"): value for key, value in found.items()}
    return {"validation": {"loss": float(scores["loss"]), **figures(scores), "rows": float(len(rows.held))}}
