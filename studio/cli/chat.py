"""`studio chat`: talk to a base, or to a base and its adapter side by side. Not here: the server that answers."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from studio import specs
from studio.cli import output
from studio.cli.session import Session
from studio.errors import ServingError

Turns = list[dict[str, str]]


def chat(
    context: typer.Context,
    adapter: Annotated[str | None, typer.Option(metavar="RUN[@STEP]", help="Also let this run answer.")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="The base. Without: the run's own.")] = None,
    system: Annotated[str | None, typer.Option(help="System text. Without: the run's own.")] = None,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.")] = 0.0,
    max_tokens: Annotated[int, typer.Option(help="Length limit of an answer, in tokens.")] = 256,
    seed: Annotated[int | None, typer.Option(help="Seed for a temperature above 0.")] = None,
    as_trained: Annotated[bool, typer.Option("--as-trained", help="Hold the base quantised as in training.")] = False,
    once: Annotated[str | None, typer.Option(metavar="TEXT", help="Answer this and end.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per answer on stdout.")] = False,
) -> None:
    """Chat with a model; with --adapter, base and adapter both answer."""
    from studio.serving import voices

    session: Session = context.obj
    voice = voices.find(adapter, base=model)
    client = session.get_client()
    names = [voices.BASE] if voice.model == voices.BASE else [voices.BASE, voice.model]
    address = client.ensure(
        voice.base,
        quantization=voice.precision(as_trained),
        on_phase=_each_once(),
    )
    sampling = specs.parse(specs.Sampling, {"temperature": temperature, "max_tokens": max_tokens, "seed": seed})
    columns = [Column(name, voice.opening(system)) for name in names]
    for text in [once] if once is not None else _messages(as_json):
        for column in columns:
            column.turns.append({"role": "user", "content": text})
        try:
            asyncio.run(_answer(client, address, columns, sampling, as_json))
        except KeyboardInterrupt:
            if once is not None:
                raise
            output.note("")
        for column in columns:
            column.close()


def _each_once() -> Callable[[str], None]:
    """Says what the server is doing, once for each phase."""
    told: list[str] = []

    def tell(phase: str) -> None:
        if phase not in told:
            told.append(phase)
            output.note(f"{phase}…")

    return tell


@dataclass
class Column:
    """One model's side of the conversation, and the answer that is coming in."""

    name: str
    turns: Turns
    text: str = ""
    shown: int = 0
    last: Any = None
    error: str | None = field(default=None)

    @property
    def done(self) -> bool:
        return self.error is not None or (self.last is not None and self.last.done)

    def close(self) -> None:
        """Keep the answer as a turn; without one, forget the question too, so that turns alternate."""
        if self.text:
            self.turns.append({"role": "assistant", "content": self.text})
        else:
            self.turns.pop()
        self.text, self.shown, self.last, self.error = "", 0, None, None

    def figures(self) -> dict[str, Any]:
        return {"tokens": self.last.tokens, "seconds": self.last.seconds, "first_token_s": self.last.first_token_s}


async def _answer(client: Any, address: Any, columns: list[Column], sampling: Any, as_json: bool) -> None:
    """Both answer at once; they are printed one after the other, the first while it comes in.

    Raises: ServingError: a column failed, or the stream ended without an answer.
    """
    front = 0
    requests = [(column.name, column.turns) for column in columns]
    async for delta in client.stream(address, requests, sampling):
        column = columns[delta.column]
        column.text += delta.text
        column.last, column.error = delta, column.error or delta.error
        if not as_json:
            front = _show(columns, front)
    failed = [column for column in columns if column.error or column.last is None]
    if failed:
        raise ServingError(f"{failed[0].name}: {failed[0].error or 'the chat server ended without an answer'}")
    if as_json:
        for column in columns:
            output.emit({"model": column.name, "text": column.text} | column.figures())


def _show(columns: list[Column], front: int) -> int:
    """Print what is new of the column in front, and move on past those that are done. Returns the new front."""
    while front < len(columns):
        column = columns[front]
        if column.last is None:
            break
        if not column.shown:
            print(f"{column.name}: ", end="")
        print(output.plain(column.text[column.shown :]), end="", flush=True)
        column.shown = len(column.text)
        if not column.done:
            break
        print()
        last = column.last
        speed, first = last.tokens_per_s or 0.0, last.first_token_s or 0.0
        output.note(f"  {last.tokens} tokens, {speed:.1f} tokens/s, first after {first:.2f} s")
        front += 1
    return front


def _messages(as_json: bool) -> Iterator[str]:
    """Lines from the terminal or from a pipe, until an empty end of input or /exit."""
    asking = sys.stdin.isatty() and not as_json
    if asking:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - gives input() its history
        output.note("Write a message. Ctrl-C ends an answer, /exit or Ctrl-D ends the chat.")
    while True:
        try:
            text = input("> " if asking else "").strip()
        except EOFError:
            return
        if text in ("/exit", "/quit"):
            return
        if text:
            yield text
