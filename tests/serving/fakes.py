"""A chat server that answers from a table: the same functions as studio.serving.client, and a record of its calls."""

import asyncio
import itertools
from dataclasses import dataclass, field

from studio.errors import ServingError
from studio.serving.client import Delta


@dataclass
class FakeClient:
    """answers: the pieces that each model streams. error: what every column reports instead. down: no server."""

    answers: dict[str, list[str]]
    error: str | None = None
    down: str | None = None
    pause_s: float = 0.0
    phases: tuple[str, ...] = ()
    ensured: list = field(default_factory=list)
    requests: list = field(default_factory=list)
    samplings: list = field(default_factory=list)
    closed: int = 0

    def ensure(self, base, *, quantization="none", on_phase=None):
        if self.down:
            raise ServingError(self.down)
        self.ensured.append({"base": base, "quantization": quantization})
        for phase in self.phases:
            on_phase(phase)
        return "address"

    async def stream(self, address, requests, sampling):
        self.requests.append([(model, list(messages)) for model, messages in requests])
        self.samplings.append(sampling)
        if self.error:
            yield Delta(0, "", True, 0, 0.0, None, self.error)
            return
        try:
            streams = [self.answers[model] for model, _ in requests]
            for position, pieces in enumerate(itertools.zip_longest(*streams)):
                for column, piece in enumerate(pieces):
                    if piece is not None:
                        last = position == len(streams[column]) - 1
                        yield Delta(column, piece, last, position + 1, (position + 1) / 10, 0.1)
                await asyncio.sleep(self.pause_s)
        except (asyncio.CancelledError, GeneratorExit):
            self.closed += 1
            raise

    def models(self, address):
        return list(self.answers)

    def stop(self):
        pass
