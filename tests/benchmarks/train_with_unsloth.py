"""One run of a job by Unsloth: `PYTHON -m tests.benchmarks.train_with_unsloth JOB`. Needs a GPU.

PYTHON may be that of an environment of its own; nothing of the studio is imported. What the job does not name is as
Unsloth's own notebooks have it. Not tried yet: no machine with Unsloth was at hand.
"""

from __future__ import annotations

import tempfile
from typing import Any

from tests.benchmarks.clock import Clock
from tests.benchmarks.train_with_trl import arguments
from tests.benchmarks.training_job import Job, given

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def load(job: Job) -> tuple[Any, Any]:
    """(model with an adapter, tokenizer)."""
    from unsloth import FastLanguageModel

    model, tokenizer = FastLanguageModel.from_pretrained(
        job.model, max_seq_length=job.cutoff, load_in_4bit=job.quantization == "nf4"
    )
    adapted = FastLanguageModel.get_peft_model(
        model,
        r=job.rank,
        lora_alpha=job.alpha,
        lora_dropout=0,
        target_modules=LINEAR,
        use_gradient_checkpointing="unsloth",
        random_state=job.seed,
    )
    return adapted, tokenizer


def main() -> None:
    clock, job = Clock(), given()
    model, tokenizer = load(job)
    # after unsloth, which puts its own in their place
    from datasets import Dataset
    from transformers import DataCollatorForSeq2Seq
    from trl import SFTConfig, SFTTrainer

    with tempfile.TemporaryDirectory() as folder:
        clock.counting(SFTTrainer)(
            model=model,
            args=SFTConfig(**arguments(job, folder)),
            train_dataset=Dataset.from_list(job.tokenised()),
            processing_class=tokenizer,
            data_collator=DataCollatorForSeq2Seq(tokenizer),
            callbacks=[clock.callback()],
        ).train()
        clock.tell()


if __name__ == "__main__":
    main()
