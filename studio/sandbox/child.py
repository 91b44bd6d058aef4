"""The process in which strangers' templates are written: `python -m studio.sandbox.child MEMORY_BYTES SECONDS`.

It reads requests on stdin and answers each on stdout, until nobody asks any more. It may use so much memory and for one
answer so much time, may write no file and start no process. Not here: who starts it, and ends what takes too long
(studio.templates.confined).
"""

from __future__ import annotations

import sys
from typing import Any

from studio.sandbox import frames, jinja, limits


def main(memory_bytes: int, seconds: float) -> None:
    """Answer until stdin ends. The first frame that it sends says that it is ready."""
    jinja.environment()
    limits.confine(memory_bytes=memory_bytes)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    frames.send(sink, {"ready": True})
    text = ""
    while (request := frames.receive(source)) is not None:
        limits.end_after(seconds)
        # whoever asks for the same template again need not send it again
        text = request.setdefault("text", text)
        frames.send(sink, _answer(request))
        limits.end_after(0)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return jinja.answer(request)
    except MemoryError:
        return {"fault": "memory", "say": ""}


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
