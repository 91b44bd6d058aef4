"""What a request to the chat server may hold, and how answers are written, as OpenAI's API has it.

A form takes the body of one request, says what is wanted of the model, gathers what is written, and puts it into chunks
or one object. What the server cannot do is refused by name, rather than left out without a word. Not here: HTTP
(server), and writing itself (scheduler). Source: the API reference of OpenAI, as its client 3 speaks it.
"""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from studio import specs
from studio.data.example import Message
from studio.errors import ServingError
from studio.serving.scheduler import Wanted
from studio.specs import Sampling

MOST_STOPS, MOST_ANSWERS, MOST_LOGPROBS = 16, 16, 20
COMPLETION_TOKENS = 16
"""Length of what follows a text where none is asked for."""
NEUTRAL: Mapping[str, Sequence[Any]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "suffix": ("",),
    "echo": (False,),
    "best_of": (1,),
}
"""What cannot be done here, and the values that ask for nothing."""


class Form(ABC):
    """One request. wanted: one for each answer, in the order of their index."""

    kind = ""
    chunk_kind = ""
    prefix = ""

    def __init__(self, body: Mapping[str, Any]):
        for name, nothing in NEUTRAL.items():
            if body.get(name) is not None and body[name] not in nothing:
                raise ServingError(f"{name} cannot be used here. Leave it out.")
        self.model = _text(body.get("model", "base"), "model")
        self.stream = _flag(body, "stream")
        self.sampling = self._sampling(body)
        self.stop = _stops(body.get("stop"))
        options = body.get("stream_options") or {}
        if not isinstance(options, Mapping):
            raise ServingError("stream_options must be an object.")
        self._tells_usage = _flag(options, "include_usage")
        self._id, self._created = f"{self.prefix}-{secrets.token_hex(8)}", int(time.time())
        self.wanted = self._wanted(body, _whole_number(body, "n", 1, MOST_ANSWERS) or 1)
        self._texts = [""] * len(self.wanted)
        self._likely: list[list[Any]] = [[] for _ in self.wanted]
        self._last: list[Any] = [None] * len(self.wanted)

    def opening(self) -> Iterator[dict[str, Any]]:
        """Chunks before the first text."""
        yield from ()

    def chunk(self, index: int, piece: Any) -> dict[str, Any]:
        """A piece of an answer, which is kept for `whole` too. Every chunk has the usage of its answer so far."""
        before = len(self._texts[index])
        self._texts[index] += piece.text
        self._likely[index] += piece.likely
        self._last[index] = piece
        choice = {"index": index, **self._new(index, piece, before), "finish_reason": _finish(piece)}
        return self._head(self.chunk_kind) | {"choices": [choice], "usage": _usage([piece])}

    def closing(self) -> Iterator[dict[str, Any]]:
        """Chunks after the last text."""
        if self._tells_usage:
            yield self._head(self.chunk_kind) | {"choices": [], "usage": _usage(self._last)}

    def whole(self) -> dict[str, Any]:
        """All answers as one object."""
        choices = [
            {"index": index, **self._all(index), "finish_reason": _finish(last)}
            for index, last in enumerate(self._last)
        ]
        return self._head(self.kind) | {"choices": choices, "usage": _usage(self._last)}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self.model}

    def _sampling(self, body: Mapping[str, Any]) -> Sampling:
        values = {name: body[name] for name in Sampling.model_fields if body.get(name) is not None}
        if body.get("max_completion_tokens") is not None:
            values["max_tokens"] = body["max_completion_tokens"]
        return specs.parse(Sampling, values)

    def _several(self, wanted: Wanted, count: int) -> Iterator[Wanted]:
        """So many answers to the same; with a seed, each has one of its own."""
        for number in range(count):
            seed = self.sampling.seed
            sampling = self.sampling if seed is None else self.sampling.model_copy(update={"seed": seed + number})
            yield Wanted(self.model, wanted.messages, sampling, wanted.prompt, self.stop, wanted.logprobs)

    @abstractmethod
    def _wanted(self, body: Mapping[str, Any], count: int) -> list[Wanted]: ...

    @abstractmethod
    def _new(self, index: int, piece: Any, before: int) -> dict[str, Any]:
        """The part of a choice that holds new text. before: characters of the answer so far."""

    @abstractmethod
    def _all(self, index: int) -> dict[str, Any]:
        """The part of a choice that holds the whole text."""


class Chat(Form):
    """/v1/chat/completions"""

    kind, chunk_kind, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def opening(self) -> Iterator[dict[str, Any]]:
        for index in range(len(self.wanted)):
            choice = {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
            yield self._head(self.chunk_kind) | {"choices": [choice]}

    def _wanted(self, body: Mapping[str, Any], count: int) -> list[Wanted]:
        most = None
        if _flag(body, "logprobs"):
            most = _whole_number(body, "top_logprobs", 0, MOST_LOGPROBS) or 0
        return list(self._several(Wanted(self.model, _messages(body), logprobs=most), count))

    def _new(self, index: int, piece: Any, before: int) -> dict[str, Any]:
        told = {"delta": {"content": piece.text} if piece.text else {}}
        return told | ({"logprobs": _chat_logprobs(piece.likely)} if self.wanted[0].logprobs is not None else {})

    def _all(self, index: int) -> dict[str, Any]:
        told: dict[str, Any] = {"message": {"role": "assistant", "content": self._texts[index]}}
        if self.wanted[0].logprobs is not None:
            told["logprobs"] = _chat_logprobs(self._likely[index])
        return told


class Text(Form):
    """/v1/completions"""

    kind = chunk_kind = "text_completion"
    prefix = "cmpl"

    def _sampling(self, body: Mapping[str, Any]) -> Sampling:
        return super()._sampling({"max_tokens": COMPLETION_TOKENS} | {k: v for k, v in body.items() if v is not None})

    def _wanted(self, body: Mapping[str, Any], count: int) -> list[Wanted]:
        most = _whole_number(body, "logprobs", 0, MOST_LOGPROBS)
        prompts = _prompts(body.get("prompt"))
        if len(prompts) * count > MOST_ANSWERS:
            raise ServingError(f"{len(prompts) * count} answers are asked for, and {MOST_ANSWERS} is the most at once.")
        return [
            wanted
            for prompt in prompts
            for wanted in self._several(Wanted(self.model, prompt=prompt, logprobs=most), count)
        ]

    def _new(self, index: int, piece: Any, before: int) -> dict[str, Any]:
        return {"text": piece.text, "logprobs": self._logprobs(piece.likely, before)}

    def _all(self, index: int) -> dict[str, Any]:
        return {"text": self._texts[index], "logprobs": self._logprobs(self._likely[index], 0)}

    def _logprobs(self, likely: Sequence[Any], before: int) -> dict[str, Any] | None:
        if self.wanted[0].logprobs is None:
            return None
        offsets = [before]
        for each in likely:
            offsets.append(offsets[-1] + len(each.text))
        return {
            "tokens": [each.text for each in likely],
            "token_logprobs": [each.logprob for each in likely],
            "top_logprobs": [dict(each.top) for each in likely],
            "text_offset": offsets[: len(likely)],
        }


def _chat_logprobs(likely: Sequence[Any]) -> dict[str, Any]:
    def one(text: str, logprob: float) -> dict[str, Any]:
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    content = [one(each.text, each.logprob) | {"top_logprobs": [one(*top) for top in each.top]} for each in likely]
    return {"content": content, "refusal": None}


def _finish(piece: Any) -> str | None:
    """As OpenAI names it: an answer that was given up has stopped."""
    return "stop" if piece is not None and piece.finish == "cancelled" else piece and piece.finish


def _usage(pieces: Sequence[Any]) -> dict[str, int]:
    prompt = sum(piece.prompt_tokens for piece in pieces if piece is not None)
    written = sum(piece.tokens for piece in pieces if piece is not None)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not _is_whole(value):
        raise ServingError(f"{name} must be a text.")
    return value


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value not in (None, True, False):
        raise ServingError(f"{name} must be true or false.")
    return bool(value)


def _whole_number(body: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ServingError(f"{name} must be a whole number from {least} to {most}.")
    return value


def _stops(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if (
        not isinstance(stops, list)
        or len(stops) > MOST_STOPS
        or not all(isinstance(each, str) and each for each in stops)
    ):
        raise ServingError(f"stop must be a text or a list of at most {MOST_STOPS} texts, none of which is empty.")
    return tuple(_text(each, "stop") for each in stops)


def _prompts(value: Any) -> list[str | list[int]]:
    """One prompt or several; each a text or token ids."""
    if isinstance(value, str):
        return [_text(value, "prompt")]
    if isinstance(value, list) and value:
        if all(isinstance(each, str) for each in value):
            return [_text(each, "prompt") for each in value]
        if _are_ids(value):
            return [value]
        if all(isinstance(each, list) and each and _are_ids(each) for each in value):
            return list(value)
    raise ServingError("prompt must be a text, token ids, or a list of one of these.")


def _are_ids(value: Sequence[Any]) -> bool:
    return all(isinstance(each, int) and not isinstance(each, bool) for each in value)


def _messages(body: Mapping[str, Any]) -> list[Message]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ServingError("messages must be a list with at least one message.")
    told = []
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or message.get("role") not in ("system", "developer", "user", "assistant"):
            raise ServingError(f"Message {number} needs a role: system, user or assistant.")
        content = _content(message.get("content"))
        if content is None:
            raise ServingError(f"Message {number} needs a content that is text.")
        if not _is_whole(content):
            raise ServingError(f"Message {number} holds half a character (a lone surrogate). Remove it.")
        told.append(Message("system" if message["role"] == "developer" else message["role"], content))
    return told


def _content(value: Any) -> str | None:
    """A text, or parts of one. None: it is something else, such as a picture."""
    if isinstance(value, list) and value:
        parts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in value]
        return "".join(parts) if all(isinstance(part, str) for part in parts) else None  # type: ignore[arg-type]
    return value if isinstance(value, str) else None


def _is_whole(text: str) -> bool:
    """Whether it can be written as UTF-8. JSON can hold half of a character, and no tokenizer takes that."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
