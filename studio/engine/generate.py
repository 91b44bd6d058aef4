"""Decode several prompts at once through one copy of the weights, each with its own adapter and sampling.

Requests may come while others are being written: they read their prompts, and share every step from then on. A soft
prompt stands before every prompt, in front of the padding. Used by chat, by the sample answers of a run and by
evaluation, so that all three answer alike. Not here: templates (studio.templates), and requests that come over a
network (studio.serving).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftModel
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from studio.engine.held import BASE, Held, Place, activate, mixes, soft_prompt
from studio.engine.mixture import mixture_of
from studio.specs import Sampling

__all__ = ["BASE", "Decoder", "Request", "Token", "complete", "decode", "sample"]

LONGER = 4
"""Batches are joined while the one's cache is at most so many times as long as the other's: more would be padding."""
SHORT = 256
"""Tokens up to which a cache is padded without a thought."""


@dataclass
class Request:
    """One answer to be written.

    prompt: token ids. adapter: its name on what is decoded with, BASE, or None for whatever is active. cancelled:
    asked before each step; a request that says yes leaves the batch. logprobs: of how many likeliest tokens the
    log-probabilities are told at each step, beside that of the chosen one; None: none at all.
    """

    prompt: list[int]
    adapter: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    stop: frozenset[int] = frozenset()
    cancelled: Callable[[], bool] = lambda: False
    logprobs: int | None = None


@dataclass(frozen=True)
class Token:
    """One step of one request. id: None when it was cancelled. finish: "stop", "length", "cancelled", or None.

    logprob: of the token, in nats, by the model's own distribution. top: ids and log-probabilities of the likeliest.
    """

    request: int
    id: int | None
    finish: str | None = None
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Decoder:
    """Writes answers to requests that may come at any time, one token of each per step.

    model: a model, with adapters or without, or a base Held with what was made of it. on_failure: told the numbers of
    the requests that could not go on, and why; they are left. Without it the error is raised.
    """

    def __init__(self, model: Any, on_failure: Callable[[Sequence[int], Exception], None] | None = None):
        self._model = model
        self._on_failure = on_failure
        self._batches: list[_Batch] = []
        self._count = 0

    @property
    def busy(self) -> bool:
        """Whether a request is unfinished."""
        return bool(self._batches)

    def add(self, requests: Sequence[Request]) -> list[int]:
        """Take requests in. Returns: the number by which tokens name each, counted on from the first of all."""
        numbers = list(range(self._count, self._count + len(requests)))
        self._count += len(requests)
        for group in _groups(self._model, requests):
            self._batches.append(_Batch(requests, group, numbers))
        return numbers

    def step(self) -> list[Token]:
        """A token of every request that is unfinished. A stop token is not part of the answer."""
        tokens: list[Token] = []
        for batch in list(self._batches):
            numbers = batch.rows
            try:
                tokens += batch.step()
            except Exception as error:
                self._batches.remove(batch)
                if self._on_failure is None:
                    raise
                self._on_failure(numbers, error)
        self._batches = _joined([batch for batch in self._batches if batch.alive])
        return tokens


def decode(model: Any, requests: Sequence[Request]) -> Iterator[list[Token]]:
    """Yield one list of tokens per step, until every request has finished. Requests are named by their place."""
    decoder = Decoder(model)
    decoder.add(requests)
    while decoder.busy:
        yield decoder.step()


def complete(model: Any, requests: Sequence[Request]) -> list[list[int]]:
    """All answers, whole, without their stop tokens."""
    answers: list[list[int]] = [[] for _ in requests]
    for tokens in decode(model, requests):
        for token in tokens:
            if token.id is not None and token.finish != "stop":
                answers[token.request].append(token.id)
    return answers


@dataclass
class _Group:
    """Requests that share forward passes through a model. adapters: one a row for PEFT to mix; else `place` has it."""

    place: Place
    rows: list[int] = field(default_factory=list)
    adapters: list[str] | None = None


def _groups(model: Any, requests: Sequence[Request]) -> list[_Group]:
    """Adapters that PEFT can mix share a batch, and the base joins them; of the others each has a batch of its own."""
    places = [model.place(each.adapter) if isinstance(model, Held) else Place(model, each.adapter) for each in requests]
    mixing = next((place.model for place in places if _mixes(place)), None)
    found: dict[tuple[int, str | None], _Group] = {}
    for row, place in enumerate(places):
        plain = place.adapter == BASE
        if mixing is not None and (_mixes(place) or plain):
            group = found.setdefault((id(mixing), None), _Group(Place(mixing), adapters=[]))
            group.adapters.append(BASE if plain else place.adapter)
        else:
            group = found.setdefault((id(place.model), place.adapter), _Group(place))
        group.rows.append(row)
    return list(found.values())


def _mixes(place: Place) -> bool:
    return place.adapter not in (None, BASE) and mixes(place.model.peft_config[place.adapter])


def _joined(batches: list[_Batch]) -> list[_Batch]:
    """Those that can go through the model together as one."""
    kept: list[_Batch] = []
    for batch in batches:
        if not any(other.take_in(batch) for other in kept):
            kept.append(batch)
    return kept


class _Batch:
    """Requests that share forward passes: left-padded prompts, one key-value cache, rows leave as they finish.

    Invariant between steps: the cache holds all that `_mask` covers but the last token of each row, which is `_next`.
    """

    def __init__(self, requests: Sequence[Request], group: _Group, numbers: Sequence[int]):
        self._model = group.place.model
        self._only = group.place.adapter
        self._adapters = group.adapters
        self._requests = [requests[row] for row in group.rows]
        self._rows = [numbers[row] for row in group.rows]
        self._cache: Any = None
        self._soft = False
        self._device = next(self._model.parameters()).device
        self._generators = [_generator(request.sampling, self._device) for request in self._requests]
        self._said = [list(request.prompt) for request in self._requests]
        self._written = [0] * len(self._rows)
        longest = max(len(request.prompt) for request in self._requests)
        pads = [longest - len(request.prompt) for request in self._requests]
        self._next = torch.tensor(
            [[0] * pad + request.prompt for pad, request in zip(pads, self._requests, strict=True)],
            device=self._device,
        )
        self._mask = torch.tensor([[0] * pad + [1] * (longest - pad) for pad in pads], device=self._device)

    @property
    def alive(self) -> bool:
        return bool(self._rows)

    @property
    def rows(self) -> list[int]:
        """The numbers of its requests."""
        return list(self._rows)

    def take_in(self, other: _Batch) -> bool:
        """Make the other's rows rows of this batch, if both have begun and go through the same model."""
        both = self, other
        if any(each._cache is None or not _pads(each._cache) for each in both):
            return False
        mixing = next((each for each in both if each._adapters is not None), None)
        if mixing is None:
            if self._model is not other._model or self._only != other._only:
                return False
        elif not all(each is mixing or each._model is mixing._model or each._only == BASE for each in both):
            return False
        lengths = sorted(each._mask.shape[1] for each in both)
        if lengths[1] > max(SHORT, LONGER * lengths[0]):
            return False
        if mixing is not None:
            adapters = [name for each in both for name in each._adapters or [BASE] * len(each._rows)]
            self._model, self._only, self._adapters = mixing._model, mixing._only, adapters
        for ours, theirs in zip(self._cache.layers, other._cache.layers, strict=True):
            ours.keys, ours.values = (
                torch.cat([_padded(getattr(each, side), lengths[1] - 1, -2) for each in (ours, theirs)])
                for side in ("keys", "values")
            )
        self._mask = torch.cat([_padded(each._mask, lengths[1], -1) for each in both])
        self._next = torch.cat([each._next for each in both])
        for name in ("_requests", "_rows", "_generators", "_said", "_written"):
            setattr(self, name, [*getattr(self, name), *getattr(other, name)])
        return True

    def step(self) -> list[Token]:
        """One forward pass and one token per row."""
        logits = self._forward()
        tokens, keep = [], []
        for place, row in enumerate(self._rows):
            token = self._choose(place, row, logits[place])
            tokens.append(token)
            if token.finish is None:
                keep.append(place)
        self._shrink(keep, tokens)
        return tokens

    @torch.inference_mode()
    def _forward(self) -> torch.Tensor:
        """Logits of the last position, (rows, vocabulary), fp32."""
        with self._adapter() as (model, names):
            seen = {"input_ids": self._next} if self._cache is not None else self._begin()
            positions = (self._mask.cumsum(-1) - 1).clamp(min=0)[:, -next(iter(seen.values())).shape[1] :]
            if self._soft:  # its prompt is in the cache by now, and the wrapper would add it again
                model = self._model.get_base_model()
            output = model(
                **seen,
                attention_mask=self._mask,
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
                **({"logits_to_keep": 1} if _takes_logits_to_keep(self._model) else {}),
                **names,
            )
        return output.logits[:, -1].float()

    def _begin(self) -> dict[str, torch.Tensor]:
        """An empty cache and the prompts, with the soft prompt of the model in one or before the other.

        Learned keys and values go into the cache (prefix tuning); learned embeddings before those of the tokens.
        """
        self._cache = DynamicCache(config=self._model.config)
        config = soft_prompt(self._model) if self._only != BASE else None
        if config is None:
            return {"input_ids": self._next}
        self._soft = True
        self._mask = torch.cat([self._mask.new_ones(len(self._rows), config.num_virtual_tokens), self._mask], dim=1)
        learned = self._model.get_prompt(batch_size=len(self._rows))
        if not isinstance(learned, torch.Tensor):
            self._cache = learned
            return {"input_ids": self._next}
        embedded = self._model.word_embeddings(self._next)
        return {"inputs_embeds": torch.cat([learned.to(embedded.dtype), embedded], dim=1)}

    @contextmanager
    def _adapter(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """The model to call, and what to call it with beside the tokens."""
        if self._adapters is not None:
            if (mixture := mixture_of(self._model)) is not None:
                with mixture.within(self._adapters) as model:
                    yield model, {}
                return
            # PEFT refuses to mix while an adapter is active that it cannot mix, even if no row asks for it
            if named := [name for name in self._adapters if name != BASE]:
                activate(self._model, named[0])
            yield self._model, {"adapter_names": self._adapters}
        elif self._only == BASE and isinstance(self._model, PeftModel):
            with self._model.disable_adapter():
                yield self._model, {}
        else:
            if self._only not in (None, BASE):
                activate(self._model, self._only)
            yield self._model, {}

    def _choose(self, place: int, row: int, logits: torch.Tensor) -> Token:
        request = self._requests[place]
        if request.cancelled():
            return Token(row, None, "cancelled")
        chosen = sample(logits, request.sampling, self._said[place], self._generators[place])
        self._said[place].append(chosen)
        self._written[place] += 1
        finish = "length" if self._written[place] >= request.sampling.max_tokens else None
        likely = _logprobs(logits, chosen, request.logprobs) if request.logprobs is not None else {}
        return Token(row, chosen, "stop" if chosen in request.stop else finish, **likely)

    def _shrink(self, keep: list[int], tokens: list[Token]) -> None:
        """Drop finished rows from everything, and put the chosen tokens up next."""
        if not keep:
            self._rows = []
            return
        if len(keep) < len(self._rows):
            index = torch.tensor(keep, device=self._device)
            self._cache.batch_select_indices(index)
            self._mask = self._mask[index]
            for name in ("_requests", "_rows", "_generators", "_said", "_written"):
                setattr(self, name, [getattr(self, name)[place] for place in keep])
            if self._adapters is not None:
                self._adapters = [self._adapters[place] for place in keep]
        self._next = torch.tensor([[tokens[place].id] for place in keep], device=self._device)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(keep), 1)], dim=1)


def _pads(cache: Any) -> bool:
    """Whether padding may be put before what it holds: in layers that see all of it, by place."""
    return all(type(layer) is DynamicLayer and layer.is_initialized for layer in cache.layers)


def _padded(x: torch.Tensor, length: int, dim: int) -> torch.Tensor:
    """x with zeros before it along dim, up to a length."""
    missing = length - x.shape[dim]
    if not missing:
        return x
    shape = list(x.shape)
    shape[dim] = missing
    return torch.cat([x.new_zeros(shape), x], dim=dim)


def _logprobs(logits: torch.Tensor, chosen: int, most: int) -> dict[str, Any]:
    """Token.logprob and Token.top. logits: (V,), fp32."""
    likely = logits.log_softmax(-1)
    top = likely.topk(min(most, len(likely)))
    return {
        "logprob": float(likely[chosen]),
        "top": tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True)),
    }


def sample(logits: torch.Tensor, sampling: Sampling, said: list[int], generator: torch.Generator | None) -> int:
    """Choose the next token. logits: (V,), fp32. said: prompt and answer so far, for the repetition penalty."""
    if sampling.repetition_penalty != 1.0:
        seen = torch.tensor(sorted(set(said)), device=logits.device)
        scores = logits[seen]
        penalty = sampling.repetition_penalty
        logits = logits.index_copy(0, seen, torch.where(scores < 0, scores * penalty, scores / penalty))
    if sampling.temperature == 0:
        return int(logits.argmax())
    # the largest is 0 then, and stays finite however small the temperature is
    logits = (logits - logits.max()) / max(sampling.temperature, 1e-6)
    if sampling.top_k:
        kept = logits.topk(min(sampling.top_k, logits.numel()))
        logits = torch.full_like(logits, -torch.inf).index_copy(0, kept.indices, kept.values)
    probabilities = logits.softmax(-1)
    if sampling.top_p < 1.0:
        ordered, order = probabilities.sort(descending=True)
        beyond = ordered.cumsum(-1) - ordered >= sampling.top_p  # the token that crosses the bound stays
        probabilities = probabilities.index_fill(0, order[beyond], 0.0)
    return int(torch.multinomial(probabilities, 1, generator=generator))


def _generator(sampling: Sampling, device: torch.device) -> torch.Generator | None:
    if sampling.temperature == 0:
        return None
    generator = torch.Generator(device)
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    return generator


def _takes_logits_to_keep(model: Any) -> bool:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(type(base).forward).parameters
