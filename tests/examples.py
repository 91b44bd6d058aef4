"""Runs as a worker tells them and as it leaves them on disk. Not here: any test."""

import time

from studio import specs
from studio.events import Ended, Phase, Plan, Sample, Saved, Step
from studio.jobs import folder as folders
from studio.jobs.journal import Journal

PLAN = Plan(
    total_steps=3,
    rows=40,
    effective_batch_size=8,
    trainable_parameters=10,
    total_parameters=1000,
    device="cpu",
    time=0,
)


def training(state="finished", message="", steps=3, step_s=0.01):
    """The events of a short run."""
    told = [Phase(name="load", time=0), PLAN]
    for step in range(1, steps + 1):
        told.append(Step(step=step, epoch=step / 3, loss=3 - step / 2, learning_rate=1e-3, time=step * step_s))
    told.append(Sample(step=steps, prompt="Who are you?", answer="I am Miro.", time=steps * step_s))
    told.append(Saved(step=steps, path="checkpoints/checkpoint-3", time=steps * step_s))
    told.append(Ended(state=state, message=message, path="adapter", time=steps * step_s))
    return told


def finished_run(name="run", **changes):
    """A folder as a finished run leaves it."""
    sets = ["data.datasets=[identity-en]", *changes.get("sets", ())]
    spec = specs.parse(specs.TrainSpec, specs.with_overrides({}, sets))
    folder = folders.create("train", spec, name)
    folder.adapter.mkdir()
    for step in changes.get("checkpoints", ()):
        folder.checkpoint(step).mkdir(parents=True)
        (folder.checkpoint(step) / "manifest.json").write_text("{}")
    journal = Journal(folder.events, 1)
    for event in training():
        journal.append(event.model_copy(update={"time": time.time()}))
    journal.close()
    return folder
