"""One run of a job by the studio, as its users start one: `python -m tests.benchmarks.train_with_studio JOB`.

studio.train() starts the worker, and the figures are read from its events and from the system. What the job does not
name is as the studio has it, but for sample answers, which no other contender gives. Its option: `spec`, further
fields of the spec by section. Supervised tokens are those of the job's rows, which are the studio's own.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from bisect import bisect
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.clock import Clock, bind, peak_rss_mib
from tests.benchmarks.training_job import Job, given, lengths

_POLL_S = 0.02


def spec_of(job: Job, dataset: str) -> dict[str, Any]:
    """A TrainSpec's values."""
    values: dict[str, dict[str, Any]] = {
        "model": {"name": job.model},
        "quantization": {"kind": job.quantization},
        "data": {"datasets": [dataset], "shuffle": False, "max_length": job.cutoff},
        "method": {"rank": job.rank, "alpha": job.alpha, "dropout": 0.0},
        "training": {
            "epochs": 1,
            "learning_rate": job.learning_rate,
            "scheduler": "linear",
            "warmup": 0,
            "batch_size": job.batch,
            "accumulation": job.accumulation,
            "save_steps": 100_000,
            "seed": job.seed,
        },
        "evaluation": {"prompts": []},
    }
    for section, fields in job.options.get("spec", {}).items():
        values[section] = values.get(section, {}) | fields
    return values


class Watch:
    """Follows a run by its events, and its worker by the system."""

    def __init__(self, job: Job, clock: Clock):
        self._clock = clock
        self._steps = tokens_by_step(job)
        self._polling: threading.Thread | None = None
        self._used: list[tuple[float, float]] = []
        self.peak_rss_mib: float | None = None
        self.peak_gpu_mib = 0.0
        self.told_tokens: list[float | None] = []
        self.choices: dict[str, str] = {}

    def __call__(self, event: Any) -> None:
        if event.type == "started":
            self._polling = threading.Thread(target=self._poll, args=(event.pid,))
            self._polling.start()
        elif event.type == "plan":
            self.choices = dict(event.choices)
        elif event.type == "step":
            self._step(event)

    def _step(self, event: Any) -> None:
        clock = self._clock
        real, supervised = self._steps[event.step - 1]
        clock.reports.append(event.time)
        clock.losses.append(event.loss)
        clock.real.append(real)
        clock.supervised.append(supervised)
        told = event.tokens_per_s * event.seconds if event.tokens_per_s and event.seconds else None
        self.told_tokens.append(told and round(told))
        self.peak_gpu_mib = max(self.peak_gpu_mib, 1024 * (event.memory_gib or 0))

    def _poll(self, pid: int) -> None:
        # until its status has been asked for, too: only then are its CPU seconds among those of our children
        worker = psutil.Process(pid)
        while Path(f"/proc/{pid}").exists():
            # the worker forgets its peak after the preflight
            self.peak_rss_mib = max(peak_rss_mib(pid) or 0, self.peak_rss_mib or 0)
            with suppress(psutil.Error):
                self._used.append((time.time(), sum(worker.cpu_times()[:2])))
            time.sleep(_POLL_S)

    def end(self) -> None:
        """Return when the worker is gone."""
        if self._polling is not None:
            self._polling.join()
        times = [moment for moment, _ in self._used]
        for report in self._clock.reports:
            self._clock.cpu_at_report_s.append(self._used[bisect(times, report) - 1][1])


def tokens_by_step(job: Job) -> list[tuple[int, int]]:
    """(tokens, supervised tokens) of each optimiser step."""
    rows, size = lengths(job), job.effective_batch
    steps = [rows[begin : begin + size] for begin in range(0, len(rows), size)]
    return [(sum(real for real, _ in step), sum(learned for _, learned in step)) for step in steps]


def main() -> None:
    job = given()
    if job.threads:
        bind(job.threads)
    import studio
    from studio.data import registry
    from studio.hardware import detect
    from studio.specs import TrainSpec, parse

    registry.add(Path(job.rows), "bench")
    spec = parse(TrainSpec, spec_of(job, "bench"))
    clock = Clock()
    watch = Watch(job, clock)
    studio.train(spec, on_event=watch)
    watch.end()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    clock.tell(
        peak_rss_mib=watch.peak_rss_mib,
        cpu_s=used.ru_utime + used.ru_stime,
        told_tokens=watch.told_tokens,
        choices=watch.choices,
        **({"peak_gpu_allocated_mib": watch.peak_gpu_mib} if detect().gpu else {}),
    )


if __name__ == "__main__":
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    main()
