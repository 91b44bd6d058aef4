"""One run of a job by LLaMA-Factory (0.9.5): `PYTHON -m tests.benchmarks.train_with_llamafactory JOB`.

PYTHON is that of an environment of its own, because it needs older libraries than the studio; nothing of the studio is
imported. What the job does not name is as LLaMA-Factory has it. Its option: `config`, further arguments by their own
names; `template` among them is needed. It writes and tokenises the rows itself. Not here: a quantised base.

The environment: `python3.11 -m venv ENV`, then `ENV/bin/pip install torch==2.13.0`, then `ENV/bin/pip install
llamafactory==0.9.5`. Where that puts torchvision and torchaudio for CUDA beside a torch for CPUs, neither loads:
uninstall torchvision, and remove the `.so` files in torchaudio's `lib`; text needs neither.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.clock import Clock, bind
from tests.benchmarks.training_job import Job, given


def put_rows(job: Job, folder: Path) -> None:
    """The rows, and the description by which they are found."""
    shutil.copy(job.rows, folder / "rows.json")
    (folder / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}}), encoding="utf-8")


def arguments(job: Job, folder: Path) -> dict[str, Any]:
    return {
        "model_name_or_path": job.model,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": job.rank,
        "lora_alpha": job.alpha,
        "lora_dropout": 0.0,
        "lora_target": "all",
        "dataset_dir": str(folder),
        "dataset": "rows",
        "cutoff_len": job.cutoff,
        "disable_shuffling": True,
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": job.batch,
        "gradient_accumulation_steps": job.accumulation,
        "num_train_epochs": 1.0,
        "learning_rate": job.learning_rate,
        "lr_scheduler_type": "linear",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "seed": job.seed,
        **job.options.get("config", {}),
    }


def train(job: Job, clock: Clock, folder: Path) -> None:
    import torch
    from llamafactory.train.sft import workflow
    from llamafactory.train.tuner import run_exp

    put_rows(job, folder)
    # there is no argument for a trainer of one's own
    workflow.CustomSeq2SeqTrainer = clock.counting(workflow.CustomSeq2SeqTrainer)
    asked = arguments(job, folder) | ({} if torch.cuda.is_available() else {"use_cpu": True})
    run_exp(args=asked, callbacks=[clock.callback()])


def main() -> None:
    clock, job = Clock(), given()
    os.environ["DISABLE_VERSION_CHECK"] = "1"  # it would refuse libraries that are newer than it knows
    if job.threads:
        bind(job.threads)
    with tempfile.TemporaryDirectory() as folder:
        train(job, clock, Path(folder))
        clock.tell()


if __name__ == "__main__":
    main()
