"""A training run as it would be recorded, to replay on the page. Not here: any test."""

import math

from studio.events import Ended, Event, Measured, Note, Phase, Plan, Sample, Saved, Step

HOSTILE = "<img src=x onerror=\"document.title='taken over'\"> & **bold**"


def recorded(steps: int = 60, seconds_per_step: float = 0.1) -> list[Event]:
    """Events of a run that loads for half a second, takes `steps` steps and finishes; four samples on the way."""
    events: list[Event] = [
        Phase(time=0.0, name="load"),
        Plan(
            time=0.5,
            total_steps=steps,
            rows=200,
            validation_rows=20,
            skipped_rows=2,
            effective_batch_size=8,
            trainable_parameters=4_884_480,
            total_parameters=139_399_872,
            device="cpu",
        ),
        Note(time=0.5, text=f"A note with {HOSTILE}"),
        Phase(time=0.5, name="train"),
    ]
    for number in range(1, steps + 1):
        time = 0.5 + number * seconds_per_step
        events.append(
            Step(
                time=time,
                step=number,
                epoch=number / 25,
                loss=0.3 + 2.5 * math.exp(-number / 15) + 0.1 * math.sin(number),
                learning_rate=1e-3 * (1 - number / (steps + 1)),
                grad_norm=1 + 0.3 * math.cos(number),
                tokens_per_s=240.0,
                seconds=seconds_per_step,
                memory_gib=2.81,
            )
        )
        if number % max(1, steps // 4) == 0:
            events.append(
                Measured(time=time, step=number, scores={"loss": 0.4 + 2.5 * math.exp(-number / 15), "perplexity": 4.0})
            )
            events.append(Sample(time=time, step=number, prompt="Who are you?", answer=f"Answer {number} {HOSTILE}"))
            events.append(Saved(time=time, step=number, path=f"checkpoints/checkpoint-{number}"))
    return [*events, Ended(time=events[-1].time, state="finished", path="adapter")]
