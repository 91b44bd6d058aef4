"""One run of a job by trl's SFTTrainer: `python -m tests.benchmarks.train_with_trl JOB`.

What the job does not name is as trl has it. Its options: `dtype` of the base (trl's own default is float32), and
`config`, fields of SFTConfig. The rows come tokenised, so that all contenders learn the very same tokens.
"""

from __future__ import annotations

import tempfile
from typing import Any

from tests.benchmarks.clock import Clock, bind
from tests.benchmarks.training_job import Job, given


def arguments(job: Job, folder: str) -> dict[str, Any]:
    """Of SFTConfig: what the job says, then what the contender changes."""
    return {
        "output_dir": folder,
        "max_length": job.cutoff,
        "per_device_train_batch_size": job.batch,
        "gradient_accumulation_steps": job.accumulation,
        "num_train_epochs": 1,
        "learning_rate": job.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "train_sampling_strategy": "sequential",
        "seed": job.seed,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    } | job.options.get("config", {})


def adapter(job: Job) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=job.rank, lora_alpha=job.alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def loading(job: Job) -> dict[str, Any]:
    """Arguments of from_pretrained."""
    import torch
    from transformers import BitsAndBytesConfig

    chosen = {"dtype": job.options["dtype"]} if "dtype" in job.options else {}
    if job.quantization == "none":
        return chosen
    return chosen | {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    }


def train(job: Job, clock: Clock, folder: str) -> None:
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, set_seed
    from trl import SFTConfig, SFTTrainer

    set_seed(job.seed)  # the trainer makes the adapter before it sets its own
    trainer = clock.counting(SFTTrainer)(
        model=job.model,
        args=SFTConfig(**arguments(job, folder), model_init_kwargs=loading(job), use_cpu=not torch.cuda.is_available()),
        train_dataset=Dataset.from_list(job.tokenised()),
        processing_class=AutoTokenizer.from_pretrained(job.model),
        peft_config=adapter(job),
        callbacks=[clock.callback()],
    )
    trainer.train()


def main() -> None:
    clock, job = Clock(), given()
    if job.threads:
        bind(job.threads)
    with tempfile.TemporaryDirectory() as folder:
        train(job, clock, folder)
        clock.tell()


if __name__ == "__main__":
    main()
