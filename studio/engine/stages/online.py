"""GRPO and RLOO over trl's trainers: the model answers prompts, and answers that score above others become likelier.

Prompts come as token ids of ours, so what is trained is what is served. Not here: the rows
(studio.engine.rows.prompts) and the scores (studio.engine.rewards).
"""

from __future__ import annotations

from typing import Any

from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from studio.engine.methods.tuning import ADAPTER
from studio.engine.rewards import rewards
from studio.engine.stages.setup import Setup, arguments, train_in_fp32, tuned
from studio.specs import GrpoStage, RlooStage
from studio.templates import stop_tokens


def grpo_trainer(setup: Setup) -> GRPOTrainer:
    """Group relative policy optimisation. Source: DeepSeekMath, arXiv:2402.03300, section 4.1."""
    stage: GrpoStage = setup.spec.stage
    return _trainer(setup, GRPOTrainer, GRPOConfig, {"loss_type": stage.grpo_loss, "epsilon": stage.epsilon})


def rloo_trainer(setup: Setup) -> RLOOTrainer:
    """REINFORCE leave-one-out. Source: Ahmadian et al., arXiv:2402.14740, section 3.2."""
    stage: RlooStage = setup.spec.stage
    return _trainer(setup, RLOOTrainer, RLOOConfig, {"epsilon": stage.epsilon})


def _trainer(setup: Setup, kind: type, config: type, others: dict[str, Any]) -> Any:
    stage, training = setup.spec.stage, setup.spec.training
    own = {
        "num_generations": stage.generations,
        "max_completion_length": stage.max_completion_length,
        "temperature": stage.temperature,
        "top_p": stage.top_p,
        "beta": stage.beta,
        "num_iterations": stage.updates,
        "reward_weights": list(stage.reward_weights) or None,
        "remove_unused_columns": False,  # the rewards need them
        "shuffle_dataset": setup.spec.data.shuffle,
        **others,
    }
    # trl counts answers; the spec counts rows, each of which gets several
    answers = training.batch_size * stage.generations
    given = arguments(setup) | {"per_device_train_batch_size": answers, "per_device_eval_batch_size": answers}
    ends = sorted(stop_tokens(setup.template, setup.text_tokenizer))
    setup.model.generation_config.eos_token_id = ends
    trainer = tuned(_with_our_prompts(kind), setup.tuning)(
        model=setup.model,
        reward_funcs=rewards(stage.rewards, code=setup.code, judge=setup.judge),
        args=config(**{**own, **given}),
        train_dataset=setup.rows.train,
        eval_dataset=setup.rows.held,
        processing_class=setup.tokenizer,
        callbacks=list(setup.callbacks),
    )
    trainer.reward_func_names = list(stage.rewards)
    if not setup.spec.start.adapters:
        forget_reference(trainer.model)
    train_in_fp32(trainer.model)
    return trainer


def _with_our_prompts(kind: type) -> type:
    """A trainer that takes the prompt's token ids from the row instead of tokenising its text."""

    class Trainer(kind):  # type: ignore[misc,valid-type]
        def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Any:
            self._ids_of_prompts = [row["prompt_ids"] for row in inputs]
            return super()._generate_and_score_completions(inputs)

        def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
            return self._ids_of_prompts, None, {}

    Trainer.__name__ = kind.__name__
    return Trainer


def forget_reference(model: Any) -> None:
    """Take away the copy of a fresh adapter that trl makes as a reference: without an adapter it is the base itself."""
    if "ref" in getattr(model, "peft_config", {}):
        model.delete_adapter("ref")
        model.set_adapter(ADAPTER)
