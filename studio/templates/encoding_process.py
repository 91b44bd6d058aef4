"""The process that encodes batches of examples: `python -m studio.templates.encoding_process MEMORY_MIB`.

It reads on stdin what to encode with, then one batch after the other, and answers each on stdout, until nobody asks any
more. Once it has its tokenizer it takes limits upon itself, as studio.sandbox.child does, so that also a stranger's
template may be written right here. Not here: who starts it, and ends what takes too long (studio.templates.many).
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import orjson

from studio.sandbox import frames, limits
from studio.templates.packed import pack, requested
from studio.templates.rendering import Template
from studio.templates.supervision import Policy
from studio.templates.tokenizer import TextTokenizer

READY, DONE, BROKEN = b"ready", b"done:", b"broken:"
"""How a frame begins that this process sends."""


def main(memory_mib: int) -> None:
    """Answer until stdin ends."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sys.excepthook = _telling(sink)
    setup = frames.receive_bytes(source)
    if setup is None:
        return
    values = orjson.loads(setup)
    tokenizer = TextTokenizer(values["tokenizer"], values["specials"], values["chat_template"])
    lists = ("families", "stop", "also")
    template = Template(**values["template"] | {name: tuple(values["template"][name]) for name in lists})
    policy, measured = Policy(**values["policy"]), values["measured"]
    del setup, values
    limits.confine(memory_bytes=_used() + memory_mib * 1024**2)
    # a tokenizer is large and never garbage, and what a row leaves behind is mostly none either
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    frames.send_bytes(sink, READY)
    while (asked := frames.receive_bytes(source)) is not None:
        examples, limit_s = requested(asked)
        limits.end_after(limit_s)
        packed = pack(examples, template, tokenizer, policy, measured=measured, memory_mib=memory_mib)
        limits.end_after(0)
        frames.send_bytes(sink, DONE + packed.to_bytes())


def _telling(sink: BinaryIO) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    """What is called when this program is at fault: whoever waits is told, because stderr leads nowhere."""

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        frames.send_bytes(sink, BROKEN + "".join(traceback.format_exception(kind, error, trace)).encode())

    return tell


def _used() -> int:
    """Bytes of address space that this process has by now; more than any needs where the system does not tell."""
    path = Path("/proc/self/statm")
    return int(path.read_text("ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE") if path.is_file() else 4 * 1024**3


if __name__ == "__main__":
    main(int(sys.argv[1]))
