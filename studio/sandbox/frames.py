"""Values through a pipe: four bytes that say how long, then so many bytes of JSON.

JSON and nothing else, because what comes out of a child is a stranger's. Not here: processes, and their time limits.
"""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

_LENGTH = struct.Struct(">I")
_MOST = 512 * 1024**2
"""Bytes of one frame. A conversation of 16 MiB of characters is at most 192 MiB of JSON."""


def send(stream: BinaryIO, value: Any) -> None:
    """Raises: OSError: nobody reads any more. ValueError: it is too long, or no JSON."""
    # only ASCII: a text may hold half of a surrogate pair, which UTF-8 cannot
    send_bytes(stream, json.dumps(value).encode("ascii"))


def receive(stream: BinaryIO) -> Any:
    """The next value; None where the other side is gone. Raises: ValueError: it is no frame."""
    data = receive_bytes(stream)
    return None if data is None else json.loads(data)


def send_bytes(stream: BinaryIO, data: bytes) -> None:
    """Raises: OSError: nobody reads any more. ValueError: it is too long."""
    if len(data) > _MOST:
        raise ValueError(f"{len(data):,} bytes are more than the {_MOST:,} that one frame may have")
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def receive_bytes(stream: BinaryIO) -> bytes | None:
    """What the next frame holds; None where the other side is gone. Raises: ValueError: it is no frame."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > _MOST:
        raise ValueError(f"a frame of {length:,} bytes is longer than the {_MOST:,} that one may have")
    data = stream.read(length)
    return data if len(data) == length else None
