"""One base in memory, and what runs made of it: answer several conversations at once, streaming text.

Not here: the network (studio.serving), and how a token is chosen (studio.engine.generate).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from studio import hardware
from studio.data.example import Message
from studio.engine.fitting import check_adapter
from studio.engine.generate import BASE, Decoder, Request, Token
from studio.engine.held import Held, virtual_tokens
from studio.engine.models.load import load_base, load_tokenizer, recorded, template_of
from studio.engine.models.resolve import resolve
from studio.errors import ServingError, unknown
from studio.specs import ModelSpec, QuantizationSpec, Sampling, TrainSpec
from studio.templates import Template, TextTokenizer, generation_prompt, stop_tokens


@dataclass
class Turn:
    """A conversation that waits for its answer, or a plain text that waits for what follows.

    model: `base` or the name of an added adapter. messages: the conversation; prompt: the text, or its token ids. stop:
    texts at which the answer ends, before them. logprobs: as Request has it.
    """

    model: str
    messages: Sequence[Message] = ()
    sampling: Sampling = field(default_factory=Sampling)
    cancelled: Callable[[], bool] = lambda: False
    prompt: str | Sequence[int] | None = None
    stop: Sequence[str] = ()
    logprobs: int | None = None


@dataclass(frozen=True)
class Asked:
    """A turn as the model is asked. stop: as Turn has it."""

    request: Request
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Likely:
    """A token of an answer with its log-probability in nats, and those of the likeliest in its place."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """New text of one turn. tokens: how many were written so far; prompt_tokens: how long the prompt was.

    turn: the number that `begin` gave. likely: tokens since the last piece, where that was asked for. error: what kept
    it from going on; finish is "failed" then.
    """

    turn: int
    text: str
    tokens: int
    prompt_tokens: int
    finish: str | None = None
    likely: tuple[Likely, ...] = ()
    error: Exception | None = None


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
        self._failed: list[Piece] = []
        self._decoder = Decoder(self._model, self._fail)
        self._speaking: dict[int, _Speech] = {}

    @property
    def busy(self) -> bool:
        """Whether an answer is unfinished."""
        return self._decoder.busy

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

    def request(self, turn: Turn) -> Asked:
        """The turn as tokens; a conversation under the template and system text of its run.

        Raises: ServingError: the model is not added, or the conversation leaves no room for an answer.
            TemplateError: the template refuses the conversation.
        """
        if turn.model not in self.names:
            raise ServingError(unknown("model", turn.model, self.names))
        run = self._runs.get(turn.model)
        template = self._templates[turn.model] if run else self._text_tokenizer.own_template
        if turn.prompt is None:
            prompt = generation_prompt(
                turn.messages, template, self._text_tokenizer, system=run.template.system if run else None
            )
        else:
            prompt = self._plain(turn.prompt)
        stop = frozenset(stop_tokens(template, self._text_tokenizer))
        sampling = self._within_positions(turn, len(prompt))
        key = self._keys.get(turn.model, BASE)
        return Asked(Request(prompt, key, sampling, stop, turn.cancelled, turn.logprobs), tuple(turn.stop))

    def begin(self, asked: Sequence[Asked]) -> list[int]:
        """Start to answer; their prompts are read together. Returns: the number by which pieces name each."""
        speeches = [_Speech(each) for each in asked]
        numbers = self._decoder.add([replace(each.asked.request, cancelled=each.is_over) for each in speeches])
        self._speaking |= dict(zip(numbers, speeches, strict=True))
        return numbers

    def step(self) -> list[Piece]:
        """What a token more of every unfinished answer adds to their texts. Text arrives in whole characters."""
        pieces = []
        for token in self._decoder.step():
            speech = self._speaking.get(token.request)
            if speech is None:  # which ended at a text, not at a token
                continue
            piece = speech.hear(token, self._text_tokenizer)
            if piece is not None:
                pieces.append(piece)
                if piece.finish:
                    del self._speaking[token.request]
        failed, self._failed = self._failed, []
        return [*pieces, *failed]

    def forget(self) -> None:
        """Give every answer up."""
        self._decoder = Decoder(self._model, self._fail)
        self._speaking.clear()
        self._failed.clear()

    def _fail(self, numbers: Sequence[int], error: Exception) -> None:
        for number in numbers:
            speech = self._speaking.pop(number, None)
            if speech is not None:
                prompt = len(speech.asked.request.prompt)
                self._failed.append(Piece(number, "", len(speech.said), prompt, "failed", error=error))

    def _plain(self, prompt: str | Sequence[int]) -> list[int]:
        """Raises: ServingError: it is empty, or has ids that the model does not know."""
        ids = self._text_tokenizer.backend.encode(prompt).ids if isinstance(prompt, str) else list(prompt)
        if not ids:
            raise ServingError("The prompt is empty. Write at least one character.")
        known = self._model.base.get_input_embeddings().weight.shape[0]
        if wrong := [each for each in ids if not 0 <= each < known]:
            raise ServingError(f"The prompt holds {wrong[0]}, and token ids of this model go from 0 to {known - 1}.")
        return ids

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


class _Speech:
    """One answer while it is being written. said: its tokens so far."""

    def __init__(self, asked: Asked):
        self.asked = asked
        self.said: list[int] = []
        self._shown = ""
        self._likely: list[tuple[int, Likely]] = []
        """With how long the text was before the token."""
        self._over = False

    def is_over(self) -> bool:
        return self._over or self.asked.request.cancelled()

    def hear(self, token: Token, tokenizer: TextTokenizer) -> Piece | None:
        """What a token adds, if it completes a character and may be shown."""
        if token.id is not None and token.finish != "stop":
            if token.logprob is not None:
                top = tuple((tokenizer.decode([each]), logprob) for each, logprob in token.top)
                likely = Likely(tokenizer.decode([token.id]), token.logprob, top)
                self._likely.append((len(tokenizer.decode(self.said)), likely))
            self.said.append(token.id)
        whole, finish = tokenizer.decode(self.said), token.finish
        found = [at for stop in self.asked.stop if (at := whole.find(stop)) >= 0]
        if found:
            whole, finish, self._over = whole[: min(found)], "stop", True
        elif not finish:
            # half a character decodes to the replacement sign until its other bytes come
            whole = _without_start_of(self.asked.stop, whole.rstrip("\ufffd"))
        new, self._shown = whole[len(self._shown) :], whole
        if not new and not finish:
            return None
        heard, later = [], []
        for at, likely in self._likely:
            (heard if at < len(whole) else later).append((at, likely))
        self._likely = later
        told = tuple(likely for _, likely in heard)
        return Piece(token.request, new, len(self.said), len(self.asked.request.prompt), finish, told)


def _without_start_of(stop: Sequence[str], text: str) -> str:
    """The text up to where one of the stop texts may have begun."""
    starts = (length for each in stop for length in range(len(each) - 1, 0, -1) if text.endswith(each[:length]))
    return text[: len(text) - max(starts, default=0)]


def _no_writer(name: str, labels: Sequence[str]) -> str:
    what = "scores answers (a reward model)" if len(labels) == 1 else f"tells {len(labels)} labels apart"
    return f"{name} {what}, so it writes no text. Measure it on the Evaluate tab instead."
