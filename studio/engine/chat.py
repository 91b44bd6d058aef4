"""One base in memory, and what runs made of it: answer several conversations at once, streaming text.

Not here: the network (studio.serving), and how a token is chosen (studio.engine.generate).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from studio import hardware
from studio.data.example import Message
from studio.engine.fitting import check_adapter
from studio.engine.generate import BASE, Request, decode
from studio.engine.held import Held, virtual_tokens
from studio.engine.models.load import load_base, load_tokenizer, recorded, template_of
from studio.engine.models.resolve import resolve
from studio.errors import ServingError, unknown
from studio.specs import ModelSpec, QuantizationSpec, Sampling, TrainSpec
from studio.templates import Template, TextTokenizer, generation_prompt, stop_tokens


@dataclass
class Turn:
    """A conversation that waits for its answer. model: `base` or the name of an added adapter."""

    model: str
    messages: Sequence[Message]
    sampling: Sampling = field(default_factory=Sampling)
    cancelled: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Piece:
    """New text of one request. tokens: how many were written so far; prompt_tokens: how long the prompt was."""

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
        self._dtype = hardware.choices(TrainSpec(model=model), hardware.detect())["model.dtype"].value
        self._model = Held(load_base(self.folder, dtype=self._dtype, quantization=quantization))
        self._runs: dict[str, TrainSpec] = {}
        self._keys: dict[str, str] = {}
        self._templates: dict[str, Template] = {}

    @property
    def names(self) -> list[str]:
        return ["base", *self._runs]

    def add(self, name: str, adapter: Path, trained: TrainSpec) -> None:
        """Put what a run left, an adapter or a whole model, beside the others.

        Raises: ModelError: it belongs to another base, or does not fit. ServingError: it does not write text.
        """
        if name in self._runs:
            return
        if labels := recorded(adapter, "labels"):
            raise ServingError(_no_writer(name, labels))
        check_adapter(adapter, self.folder)
        # PEFT uses an adapter's name as a module's name, where a dot would be a path
        key = f"run{len(self._runs)}"
        template = template_of(adapter, trained.template.name, self._text_tokenizer)
        self._model.add(key, adapter, dtype=self._dtype)
        self._runs[name], self._keys[name], self._templates[name] = trained, key, template

    def request(self, turn: Turn) -> Request:
        """The turn as tokens, under the template and system text of its run.

        Raises: ServingError: the model is not added, or the conversation leaves no room for an answer.
            TemplateError: the template refuses the conversation.
        """
        if turn.model not in self.names:
            raise ServingError(unknown("model", turn.model, self.names))
        run = self._runs.get(turn.model)
        template = self._templates[turn.model] if run else self._text_tokenizer.own_template
        prompt = generation_prompt(
            turn.messages, template, self._text_tokenizer, system=run.template.system if run else None
        )
        stop = frozenset(stop_tokens(template, self._text_tokenizer))
        return Request(
            prompt, self._keys.get(turn.model, BASE), self._within_positions(turn, len(prompt)), stop, turn.cancelled
        )

    def answer(self, requests: Sequence[Request]) -> Iterator[Piece]:
        """Stream the answers of all requests, decoded in one batch. Text arrives in whole characters."""
        said: list[list[int]] = [[] for _ in requests]
        shown = [""] * len(requests)
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

    def _within_positions(self, turn: Turn, prompt_tokens: int) -> Sampling:
        """The sampling, cut to what fits: beyond its positions a model babbles, or has no embedding at all."""
        prompt_tokens += virtual_tokens(self._model.place(self._keys.get(turn.model)))
        positions = getattr(self._model.config, "max_position_embeddings", None)
        if not positions or prompt_tokens + turn.sampling.max_tokens <= positions:
            return turn.sampling
        if prompt_tokens >= positions:
            raise ServingError(
                f"The conversation is {prompt_tokens} tokens long, and the model has {positions} positions. "
                "Shorten the message, or start a new conversation."
            )
        return turn.sampling.model_copy(update={"max_tokens": positions - prompt_tokens})


def _no_writer(name: str, labels: Sequence[str]) -> str:
    what = "scores answers (a reward model)" if len(labels) == 1 else f"tells {len(labels)} labels apart"
    return f"{name} {what}, so it writes no text. Measure it on the Evaluate tab instead."
