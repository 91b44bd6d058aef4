"""One base in memory, many adapters: answer several conversations at once, streaming text.

Not here: the network (studio.serving), and how a token is chosen (studio.engine.generate).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio import hardware
from studio.data.example import Message
from studio.engine import quiet  # noqa: F401 - before the libraries
from studio.engine.generate import BASE, Request, decode
from studio.engine.models.load import check_base, load_base, load_tokenizer
from studio.engine.models.resolve import resolve
from studio.engine.trained import with_adapter
from studio.specs import ModelSpec, QuantizationSpec, Sampling, TrainSpec
from studio.templates import AUTO, TextTokenizer, generation_prompt, stop_tokens
from studio.templates import resolve as resolve_template


@dataclass
class Turn:
    """A conversation that waits for its answer. model: `base` or the name of an added adapter."""

    model: str
    messages: list[Message]
    sampling: Sampling = field(default_factory=Sampling)
    cancelled: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Piece:
    """New text of one turn. tokens: how many were written so far; prompt_tokens: how long the prompt was."""

    turn: int
    text: str
    tokens: int
    prompt_tokens: int
    finish: str | None = None


class Chat:
    """Holds the base once. Not safe for threads: one caller at a time."""

    def __init__(self, model: ModelSpec, quantization: QuantizationSpec, progress: Callable[..., None]):
        self.folder = resolve(model.name, model.revision, progress=progress)
        self._text_tokenizer: TextTokenizer = load_tokenizer(self.folder)[1]
        progress("load")
        dtype = hardware.choices(TrainSpec(model=model), hardware.detect())["model.dtype"].value
        self._model: Any = load_base(self.folder, dtype=dtype, quantization=quantization).eval()
        self._runs: dict[str, TrainSpec] = {}

    @property
    def names(self) -> list[str]:
        return ["base", *self._runs]

    def add(self, name: str, adapter: Path, trained: TrainSpec) -> None:
        """Put a run's adapter beside the others. Raises: ModelError: it belongs to another base, or does not fit."""
        if name in self._runs:
            return
        check_base(adapter, self.folder)
        self._model = with_adapter(self._model, adapter, _key(name))
        self._runs[name] = trained

    def answer(self, turns: Sequence[Turn]) -> Iterator[Piece]:
        """Stream the answers of all turns, decoded in one batch. Text arrives in whole characters."""
        requests = [self._request(turn) for turn in turns]
        said: list[list[int]] = [[] for _ in turns]
        shown = [""] * len(turns)
        for tokens in decode(self._model, requests):
            for token in tokens:
                turn = token.request
                if token.id is not None and token.finish != "stop":
                    said[turn].append(token.id)
                text = self._text_tokenizer.decode(said[turn])
                # half a character decodes to the replacement sign until its other bytes come
                whole = text if token.finish else text.rstrip("\ufffd")
                new, shown[turn] = whole[len(shown[turn]) :], whole
                if new or token.finish:
                    yield Piece(turn, new, len(said[turn]), len(requests[turn].prompt), token.finish)

    def _request(self, turn: Turn) -> Request:
        run = self._runs.get(turn.model)
        template = resolve_template(run.template.name if run else AUTO, self._text_tokenizer)
        prompt = generation_prompt(
            turn.messages, template, self._text_tokenizer, system=run.template.system if run else None
        )
        stop = frozenset(stop_tokens(template, self._text_tokenizer))
        # a model without any adapter on it knows no adapter names
        name = (_key(turn.model) if run else BASE) if self._runs else None
        return Request(prompt, name, turn.sampling, stop, turn.cancelled)


def _key(name: str) -> str:
    """PEFT uses an adapter's name as a module's name, where a dot would be a path."""
    return name.replace(".", "_")
