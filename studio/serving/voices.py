"""Who can answer in a chat: a base, a run's finished adapter, or one of its checkpoints. Plain values.

Not here: the server that answers and the way to it (studio.serving.client).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from studio.errors import JobError, ServingError
from studio.jobs import folder as folders
from studio.jobs.monitor import JobView, view_of
from studio.specs import BUNDLED_MODEL

BASE = "base"


@dataclass(frozen=True)
class Voice:
    """One model name on the chat server, and what the server must hold for it.

    model: `base`, `RUN` or `RUN@STEP`. quantization: how the base was held while the adapter trained. system: the
    system text that the run gave to conversations without one.
    """

    model: str
    base: str
    label: str = ""
    quantization: str = "none"
    system: str | None = None

    def precision(self, as_trained: bool) -> str:
        """The quantisation to ask the server for."""
        return self.quantization if as_trained else "none"

    def opening(self, system: str | None = None) -> list[dict[str, str]]:
        """The turns before the first message: the given system text, else the one the run was trained with."""
        text = system or self.system
        return [{"role": "system", "content": text}] if text else []


def base(name: str = BUNDLED_MODEL) -> Voice:
    """The base alone."""
    return Voice(BASE, name, label=name)


def of_run(view: JobView) -> list[Voice]:
    """The finished adapter of a run, if there is one, then its checkpoints, newest first."""
    if view.kind != "train" or view.spec is None:
        return []
    finished = [None] if view.has_adapter else []
    return [_voice(view, step) for step in (*finished, *reversed(view.saved))]


def find(name: str | None, *, base: str | None = None) -> Voice:
    """The voice of `RUN` or `RUN@STEP`; of the base alone without a name. `RUN` may be an unfinished run.

    base: must be the run's own, where both are given. Raises: JobError: no such run, adapter or checkpoint.
        ServingError: the run has another base.
    """
    if not name or name == BASE:
        return Voice(BASE, base or BUNDLED_MODEL, label=base or BUNDLED_MODEL)
    run, _, step = name.partition("@")
    folder = folders.find(run)
    if step and not (step.isdecimal() and len(step) < 10):  # isdigit takes ², which is no number
        raise JobError(f"'{name}' is not of the form RUN@STEP. Kept steps: {folder.checkpoint_steps()}.")
    folder.adapter_at(int(step) if step else None)
    view = view_of(folder)
    if view.spec is None:
        raise JobError(f"{folder.spec} cannot be read, so the base of {run} is not known.")
    voice = _voice(view, int(step) if step else None)
    if base and base != voice.base:
        raise ServingError(f"{run} was trained on {voice.base}, not on {base}. Leave the model out, or name that one.")
    return voice


def together(voices: Iterable[Voice]) -> Voice:
    """The voice that says what the server must hold for all of them; a base alone fits any adapter of itself.

    Raises: ServingError: they need different bases, which one server cannot hold.
    """
    chosen = list(voices)
    adapters = [voice for voice in chosen if voice.model != BASE]
    first = (adapters or chosen)[0]
    for other in chosen:
        if other.base != first.base:
            raise ServingError(
                f"{other.label} is for {other.base}, and {first.label} for {first.base}. "
                "Choose two of the same base model: one chat holds one base in memory."
            )
    return first


async def answer(client: Any, address: Any, request: tuple[str, list[dict[str, str]]], sampling: Any) -> str:
    """One whole answer. Raises: ServingError: the server reported an error."""
    parts = []
    async for delta in client.stream(address, [request], sampling):
        if delta.error:
            raise ServingError(delta.error)
        parts.append(delta.text)
    return "".join(parts)


def _voice(view: JobView, step: int | None) -> Voice:
    spec = view.spec
    return Voice(
        model=f"{view.id}@{step}" if step else view.id,
        base=spec["model"]["name"],
        label=f"{view.id} · step {step}" if step else view.id,
        quantization=spec["quantization"]["kind"],
        system=spec["template"]["system"],
    )
