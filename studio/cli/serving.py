"""`studio serve`: a base and what was made of it under an address. Not here: the server (studio.serving)."""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from studio import specs
from studio.cli import output
from studio.cli.session import Session
from studio.errors import ServingError

if TYPE_CHECKING:
    from studio.serving.address import Address
    from studio.serving.scheduler import Scheduler

TOKEN = "STUDIO_TOKEN"
LEAST_TOKEN = 16
"""Characters of a token that somebody chose."""
LOOK_S = 0.5


def serve(
    context: typer.Context,
    model: Annotated[str, typer.Option(metavar="NAME", help="The base.")] = specs.BUNDLED_MODEL,
    quantization: Annotated[str, typer.Option(help="How the base is held: none, nf4, fp4 or int8.")] = "none",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8000,
    replace: Annotated[bool, typer.Option("--replace", help="End the chat server that is running now.")] = False,
) -> None:
    """Serve a base, its runs and their checkpoints, as OpenAI's API has it."""
    session: Session = context.obj
    specs.parse(specs.QuantizationSpec, {"kind": quantization})
    token = _token()
    client = session.get_client()
    if (address := client.running()) is not None:
        if not replace:
            raise ServingError(f"A chat server holds {address.base} at {address.url}. End it with --replace.")
        client.stop()
    from studio.serving import server

    try:
        server.serve(model, quantization, host=host, port=port, token=token, told=partial(_tell, host))
    except KeyboardInterrupt:
        output.note("Closed.")


def _tell(host: str, address: Address, scheduler: Scheduler) -> None:
    from studio.serving.gate import is_loopback

    output.note(f"Base URL  {address.url}/v1")
    output.note(f"API key   {address.token}" if not os.environ.get(TOKEN) else f"API key   that of {TOKEN}")
    if not is_loopback(host):
        output.note("Other machines can reach it, and the key travels unencrypted. Put TLS before it.")
    threading.Thread(target=_tell_models, args=(scheduler,), daemon=True).start()


def _tell_models(scheduler: Scheduler) -> None:
    waiting = threading.Event()
    while not scheduler.ready and not scheduler.error:
        waiting.wait(LOOK_S)
    if scheduler.ready:
        output.note(f"Models    {', '.join(scheduler.names)}")


def _token() -> str | None:
    """Raises: ServingError: the one that was chosen is too short."""
    token = os.environ.get(TOKEN)
    if token is not None and len(token) < LEAST_TOKEN:
        raise ServingError(f"{TOKEN} has {len(token)} characters. Choose at least {LEAST_TOKEN}, or leave it out.")
    return token
