"""Unfold gzip and zstd as a stream of bytes, within bounds that no honest file meets.

A bomb is refused before it unfolds where the container declares its size, and otherwise at the moment it passes the
bound, in constant memory. Not here: archives of several files; what the bytes mean (studio.data.readers).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Literal

from studio.errors import DataError

Compression = Literal["", "gzip", "zstd"]

SUFFIXES: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
MAGIC: dict[bytes, Compression] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}

SMALL = 100 * 1024**2
"""Bytes that any file may unfold to."""
MAX_RATIO = 200
"""Times its own size that a larger file may unfold to. Text that people write is packed to a twentieth at best."""
MAX_UNFOLDED = 64 * 1024**3
"""Bytes that no file may pass."""

CHUNK = 1024**2


def detect(start: bytes) -> Compression:
    """How a file is compressed, by its first bytes; empty for one that is not."""
    return next((name for magic, name in MAGIC.items() if start.startswith(magic)), "")


def allowed(size: int) -> int:
    """The bytes that a file of this size may unfold to."""
    return min(max(SMALL, MAX_RATIO * size), MAX_UNFOLDED)


def chunks(
    file: BinaryIO, compression: Compression, *, name: str, size: int, tell: Callable[[int], None] | None = None
) -> Iterator[bytes]:
    """The bytes of an open file, unfolded, in pieces of at most about a MiB.

    tell is called with every piece, with the bytes of the file itself that were read by then.

    Raises: DataError: the compressed stream is damaged, or unfolds to more than is allowed.
    """
    source = _Counted(file)
    if not compression:
        pieces = iter(lambda: source.read(CHUNK), b"")
    else:
        _refuse_declared(file, compression, name, size)
        pieces = _bounded((_gzip if compression == "gzip" else _zstd)(source, name), name, size)
    for piece in pieces:
        if tell:
            tell(source.done)
        yield piece
    if tell:
        tell(source.done)


def bomb(name: str, size: int, declared: int | None = None) -> DataError:
    """The refusal of a file that unfolds to too much, or says so."""
    what = f"unfolds to more than {readable(allowed(size))}" if declared is None else f"declares {readable(declared)}"
    return DataError(
        f"{name} {what}, but has {readable(size)} itself: it is cut off, damaged, or made to fill the memory. "
        "Get the file again, or unpack it yourself if you trust it."
    )


def readable(size: int) -> str:
    """Bytes with a unit that people read."""
    for unit, each in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if size >= each:
            return f"{size / each:.3g} {unit}"
    return f"{size} bytes"


class _Counted:
    """A file that knows how many bytes were read from it. It is what pyarrow takes for a file, too."""

    closed = False

    def __init__(self, file: BinaryIO):
        self._file = file
        self.done = 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.done += len(data)
        return data

    def close(self) -> None:
        """Whoever opened the file closes it."""


def _bounded(pieces: Iterator[bytes], name: str, size: int) -> Iterator[bytes]:
    unfolded, bound = 0, allowed(size)
    for piece in pieces:
        unfolded += len(piece)
        if unfolded > bound:
            raise bomb(name, size)
        yield piece


def _gzip(source: _Counted, name: str) -> Iterator[bytes]:
    """Members after each other, with zeros between or after them, as gzip itself reads them."""
    waiting = source.read(CHUNK)
    while waiting:
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            try:
                piece = member.decompress(waiting, CHUNK)
            except zlib.error as error:
                raise _damaged(name, "gzip", str(error)) from error
            if piece:
                yield piece
            elif not waiting and not member.eof:
                raise _damaged(name, "gzip", "it ends too early")
            waiting = member.unconsumed_tail or (b"" if member.eof else source.read(CHUNK))
        waiting = member.unused_data.lstrip(b"\0")
        while not waiting and (waiting := source.read(CHUNK)):
            waiting = waiting.lstrip(b"\0")


def _zstd(source: _Counted, name: str) -> Iterator[bytes]:
    import pyarrow as arrow  # here, because the page starts faster without it

    try:
        with arrow.CompressedInputStream(arrow.PythonFile(source, mode="r"), "zstd") as stream:
            while piece := stream.read(CHUNK):
                yield piece
    except (OSError, arrow.ArrowException) as error:
        raise _damaged(name, "zstd", str(error)[:120]) from error


def _damaged(name: str, kind: str, why: str) -> DataError:
    return DataError(f"{name} is damaged where it is compressed ({kind}): {why.rstrip('.')}. Get the file again.")


def _refuse_declared(file: BinaryIO, compression: str, name: str, size: int) -> None:
    """Refuse a file by what it says itself: gzip in its last four bytes, zstd in its first frame's header."""
    start = file.read(18)
    file.seek(max(size - 4, 0))
    end = file.read(4)
    file.seek(0)
    declared = int.from_bytes(end, "little") if compression == "gzip" else _zstd_content_size(start)
    if declared > allowed(size):
        raise bomb(name, size, declared)


def _zstd_content_size(start: bytes) -> int:
    """The first frame's content size; 0 where it is not stated. Source: RFC 8878, section 3.1.1.1."""
    if len(start) < 6:
        return 0
    about = start[4]
    single, width = bool(about & 0x20), (0, 2, 4, 8)[about >> 6]
    if single and not width:
        width = 1
    place = 5 + (not single) + (0, 1, 2, 4)[about & 3]
    value = int.from_bytes(start[place : place + width], "little")
    return value + 256 if width == 2 else value
