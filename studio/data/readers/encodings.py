"""Text as UTF-8 bytes: byte order marks go, UTF-16 is rewritten, any other encoding is refused with a guess.

A file of UTF-8 with a few broken characters passes; the readers find them as faults of their rows. Not here: lines.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from studio.errors import DataError

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_CONTINUATION = bytes(range(0x80, 0xC0))
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
_HAN = re.compile("[\u4e00-\u9fff]")

NOT_UTF8 = "is not UTF-8 text. Write its characters again, or save the file as UTF-8."
"""The fault of one row."""


def utf8(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """The chunks of a text, as UTF-8 without a byte order mark.

    Raises: DataError: the text is in another encoding.
    """
    start = b""
    for chunk in chunks:
        start += chunk
        if len(start) >= 4:
            break
    if start.startswith(_UTF16):
        return _from_utf16(start, chunks, name)
    if _is_half_zeros(start[:4096]):
        raise _refused(name, start)
    return _judged(start.removeprefix(codecs.BOM_UTF8), chunks, name)


def _from_utf16(start: bytes, chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder("utf-16")()
    try:
        yield decoder.decode(start).encode()
        for chunk in chunks:
            yield decoder.decode(chunk).encode()
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise DataError(f"{name} begins as UTF-16 text, but is damaged further on. Save it as UTF-8.") from error


def _judged(start: bytes, chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """The same chunks. The first ones that go beyond ASCII decide whether this is UTF-8 at all."""
    chunk: bytes | None = start
    while chunk is not None and (chunk.isascii() or not _is_utf8(chunk, name)):
        yield chunk
        chunk = next(chunks, None)
    if chunk is not None:
        yield chunk
        yield from chunks


def _is_utf8(chunk: bytes, name: str) -> bool:
    """Whether there are characters of UTF-8; False where a chunk's only sign of it is cut off at an end."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    # continuation bytes at the start belong to a character of the chunk before
    text = decoder.decode(chunk.lstrip(_CONTINUATION))
    broken = text.count("\ufffd") - chunk.count("\ufffd".encode())
    whole = len(_BEYOND_ASCII.findall(text)) - broken
    if broken > whole:
        raise _refused(name, chunk)
    return whole > 0


def _refused(name: str, sample: bytes) -> DataError:
    return DataError(f"{name} is not UTF-8 text, but looks like {_guess(sample)}. Save it as UTF-8.")


def _guess(sample: bytes) -> str:
    sample = sample[: 256 * 1024]
    if _is_half_zeros(sample):
        return "UTF-16 without its byte order mark"
    try:
        if _HAN.search(codecs.getincrementaldecoder("gb18030")().decode(sample)):
            return "GB18030 (GBK)"
    except UnicodeDecodeError:
        pass
    return "Latin-1 (Windows-1252)"


def _is_half_zeros(data: bytes) -> bool:
    return max(data[::2].count(0), data[1::2].count(0)) > len(data) // 8
