"""Measures what a tuning method can do on a base: ten steps, saved, reloaded by plain PEFT, merged, mixed.

Not here: which methods there are to prove, and what the measurements mean for the table (prove).
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from safetensors.torch import load_file

from studio.errors import StudioError
from studio.home import CHECKOUT
from studio.specs import Method, QuantizationSpec, TrainSpec, parse

BASES = ("none", "nf4", "int8")
STEPS = 10
TOKENS = 4
FAILURES = (StudioError, RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError)
"""What libraries raise where a method does not work; that is what is to be found out."""
CLOSE = 1e-4
"""Largest difference between equal logits, losses or gradients, as a share of the largest one."""


@dataclass(frozen=True)
class Variant:
    """A row of the table.

    name: as Method.variants has it. method: its spec. model: the bundled one, or a small random one of an architecture
    that has what the method needs. bases: on which it is tried. register: the module that makes it known to PEFT.
    whole: it leaves a whole model. unmoved: share of its tensors that may rightly stay as they are for ten steps.
    """

    name: str
    method: Mapping[str, Any]
    model: str = "bundled"
    bases: tuple[str, ...] = BASES
    register: str | None = None
    whole: bool = False
    unmoved: float = 0.0

    @property
    def spec(self) -> Any:
        return TypeAdapter(Method).validate_python(dict(self.method))


@dataclass
class Seen:
    """What is measured on the trained model before it is saved.

    start: how far its first answers are from those of the base. moved: share of the trained tensors that changed.
    padding_free and checkpointing: the difference that they make, or
    a reason why they cannot be. logits: of fixed ids. tokens: what studio.engine.generate says.
    """

    start: float = 0.0
    logits: Any = None
    tokens: list[int] = field(default_factory=list)
    moved: float = 0.0
    still: list[str] = field(default_factory=list)
    padding_free: Any = None
    checkpointing: Any = None


@dataclass
class Found:
    """The measurements of one variant on one base. fault: why it does not work on this base, or nothing."""

    variant: str
    base: str
    fault: str | None = None
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    start: float = 0.0
    moved: float = 0.0
    reloaded: float | None = None
    says: list[int] = field(default_factory=list)
    generates: list[int] = field(default_factory=list)
    merge: tuple[float | None, str | None] = (None, None)
    mixed: tuple[float | None, str | None] = (None, None)
    padding_free: tuple[float | None, str | None] = (None, None)
    checkpointing: tuple[float | None, str | None] = (None, None)


NOT = (None, None)
"""What was not measured."""


class Reloader:
    """The other process, begun at the first question; see reload."""

    def __enter__(self) -> Reloader:
        self._process: subprocess.Popen[str] | None = None
        return self

    def __exit__(self, *error: Any) -> None:
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait(timeout=60)

    def ask(self, **asked: Any) -> dict[str, Any]:
        self._process = self._process or self._begun()
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def _begun(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("reload.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=CHECKOUT,
            env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        )


def measure(variant: Variant, base: str, model: Path, reloader: Reloader, *, steps: int = STEPS) -> Found:
    """Ten steps and everything after them. model: the base's folder. The home of the studio must be a scratch one."""
    began, found = time.monotonic(), Found(variant.name, base)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        try:
            losses, seen = trained(variant, base, model, place, steps)
        except FAILURES as error:
            found.fault = _line(error)
            return found
        found.losses, found.start, found.moved, found.says = losses, seen.start, seen.moved, seen.tokens
        found.padding_free, found.checkpointing = seen.padding_free, seen.checkpointing
        asked = {
            "folder": str(place / "adapter"),
            "base": str(model),
            "ids": IDS,
            "count": TOKENS,
            "register": variant.register,
            "tasks": variant.name.startswith("multitask"),
            "whole": variant.whole,
            "out": str(place / "logits.safetensors"),
        }
        reply = reloader.ask(**asked, quantization=base, checks=())
        if reply.get("fault"):
            found.fault = f"reload: {reply['fault']}"
            return found
        found.reloaded = _difference(load_file(place / "logits.safetensors")["logits"], seen.logits)
        found.generates = reply["tokens"]
        if variant.whole:
            found.merge = (found.reloaded, None)
        elif base == variant.bases[0]:  # merging and mixing are done on the base in full precision, whatever it was
            reply = reloader.ask(**asked, quantization="none", checks=("merge", "mixed"))
            found.merge, found.mixed = reply.get("merge", NOT), reply.get("mixed", NOT)
        found.fault = _fault(found, variant, seen)
    found.seconds = round(time.monotonic() - began, 1)
    return found


def _fault(found: Found, variant: Variant, seen: Seen) -> str | None:
    if not all(abs(loss) < 100 for loss in found.losses) or len(set(found.losses)) < 2:
        return f"the loss does not change or is no number: {found.losses}"
    if found.moved < 1 - variant.unmoved:
        return f"{1 - found.moved:.0%} of the tensors did not move, such as {seen.still[0]}"
    if found.reloaded > CLOSE:
        return f"reloaded logits are off by {found.reloaded:.1e}"
    if found.base == "none" and found.says != found.generates:
        return f"the studio says {found.says}, PEFT {found.generates}"
    return None


IDS = [1, 123, 5, 77, 314, 42, 9, 256, 2, 31, 8, 600]
OTHER = [7, 1999, 45, 3, 90, 12, 500]
"""Any tokens that every base has, among them those that train_tokens trains."""


def trained(variant: Variant, base: str, model: Path, place: Path, steps: int) -> tuple[list[float], Seen]:
    """Train through the studio, and look at the model before it is saved."""
    from studio.engine import train as story
    from studio.events import Step

    told: list[Any] = []
    seen = Seen()
    with _watched(story, seen):
        story.train(
            spec_of(variant, base, model, steps),
            checkpoints=place / "checkpoints",
            adapter=place / "adapter",
            record=place / "record.json",
            emit=told.append,
            stopping=lambda: False,
        )
    gc.collect()
    return [event.loss for event in told if isinstance(event, Step)], seen


def spec_of(variant: Variant, base: str, model: Path, steps: int) -> TrainSpec:
    """A short run, put together without the checks that go by the very table that is to be proven."""
    spec = parse(
        TrainSpec,
        {
            "model": {"name": str(model), "dtype": "fp32"},
            "quantization": {"kind": "none"},
            "data": {"datasets": ["sums", "sums-too"], "max_length": 48},
            "training": {
                "max_steps": steps,
                "batch_size": 1,
                "accumulation": 1,
                "learning_rate": 5e-4,
                "save_steps": 1000,
                "precision": "fp32",
            },
            "evaluation": {"prompts": []},
        },
    )
    return spec.model_copy(update={"method": variant.spec, "quantization": QuantizationSpec(kind=base)})


@contextmanager
def _watched(story: Any, seen: Seen) -> Iterator[None]:
    """Look at the model when the method has been put on it, and again when it is about to be saved."""
    usual = story.tuning

    def watched(method: Any) -> Any:
        tuning, before = usual(method), {}

        def attach(model: Any, context: Any) -> Any:
            base = _answers(model)
            tuned = tuning.attach(model, context)
            seen.start = _difference(_answers(tuned)[-len(base) :], base)
            for name, parameter in tuned.named_parameters():
                if parameter.requires_grad:
                    before[name] = parameter.detach().float().clone()
            return tuned

        def save(model: Any, folder: Path) -> None:
            look(model, before, seen)
            tuning.save(model, folder)

        return replace(tuning, attach=attach, save=save)

    story.tuning = watched
    try:
        yield
    finally:
        story.tuning = usual


def look(model: Any, before: Mapping[str, Any], seen: Seen) -> None:
    """Fill in what is seen of a trained model."""
    import torch

    now = {name: parameter.detach().float() for name, parameter in model.named_parameters()}
    seen.still = [name for name, tensor in before.items() if torch.equal(tensor, now[name])]
    seen.moved = 1 - len(seen.still) / len(before)
    seen.checkpointing = _attempt(lambda: _recomputed(model))
    seen.logits = _answers(model)
    with torch.no_grad():
        seen.padding_free = _attempt(lambda: _end_to_end(model))
    seen.tokens = _said(model)
    model.train()


def _answers(model: Any) -> Any:
    """Logits of fixed ids, (tokens, vocabulary); soft prompts stand before them."""
    import torch

    model.eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([IDS]), attention_mask=torch.ones(1, len(IDS))).logits[0].float()


def _said(model: Any) -> list[int]:
    from studio.engine.generate import Request, complete
    from studio.specs import Sampling

    return complete(model, [Request(IDS, sampling=Sampling(max_tokens=TOKENS))])[0]


def _end_to_end(model: Any) -> float:
    """How far two rows that lie end to end are from the same rows apart."""
    import torch

    apart = [model(input_ids=torch.tensor([ids])).logits[0].float() for ids in (IDS, OTHER)]
    places = torch.tensor([[*range(len(IDS)), *range(len(OTHER))]])
    together = model(input_ids=torch.tensor([IDS + OTHER]), position_ids=places).logits[0].float()
    if together.shape[0] != len(IDS) + len(OTHER):
        raise ValueError("virtual tokens stand before a batch, not before each of its rows")
    return max(_difference(together[: len(IDS)], apart[0]), _difference(together[len(IDS) :], apart[1]))


def _recomputed(model: Any) -> float:
    """How far loss and gradients with recomputed activations are from those with kept ones."""
    import torch

    def passed() -> tuple[Any, dict[str, Any]]:
        torch.manual_seed(0)
        model.zero_grad()
        ids = torch.tensor([IDS])
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids, use_cache=False).loss
        loss.backward()
        grads = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
        model.zero_grad()
        return loss.detach(), grads

    model.train()
    model.gradient_checkpointing_disable()
    loss, grads = passed()
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        again, others = passed()
    finally:
        model.gradient_checkpointing_disable()
        model.disable_input_require_grads()
    missing = sorted(grads.keys() - others.keys())
    if missing:
        raise ValueError(f"{missing[0]} gets no gradient")
    worst = max(float((others[name] - grad).norm() / grad.norm().clamp(min=1e-6)) for name, grad in grads.items())
    return max(abs(float(again - loss)) / float(loss), worst)


def _attempt(action: Any) -> tuple[float | None, str | None]:
    try:
        return action(), None
    except FAILURES as error:
        return None, _line(error)


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def _difference(one: Any, other: Any) -> float:
    if one.shape != other.shape:
        return float("inf")
    return float((one - other).abs().max() / other.abs().max().clamp(min=1.0))
