"""Take a file into STUDIO_HOME's uploads, under its hash, so that what was registered stays what is trained on.

Only a plain local file is taken: no link, no address, no archive. Not here: what is in it (studio.data.registry).
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from studio.data.readers import KINDS
from studio.errors import DataError
from studio.home import home

MAX_BYTES = 2 * 1024**3
_CHUNK = 1024**2
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|.*::", re.DOTALL)


@dataclass(frozen=True)
class Upload:
    """A copy that is not kept yet. name: what the file was called."""

    path: Path
    name: str
    sha256: str

    def keep(self) -> Path:
        """Give the copy its place for good. The same content twice is one file."""
        target = home().uploads / f"{self.sha256}{self.path.suffix}"
        self.path.replace(target)
        return target


@contextmanager
def taken_in(source: Path | str) -> Iterator[Upload]:
    """A copy of a file, deleted at the end unless it was kept.

    Raises: DataError: the source is not a plain local file of a known kind, or it is too large.
    """
    path = checked_source(source)
    scratch = home().uploads / f".{secrets.token_hex(8)}{path.suffix.lower()}"
    try:
        yield Upload(scratch, path.name, _copy(path, scratch))
    finally:
        scratch.unlink(missing_ok=True)


def checked_source(source: Path | str) -> Path:
    """The path of a source that may be taken. Raises: DataError: it may not."""
    if _ADDRESS.match(str(source)):
        raise DataError(f"{source} is an address. Nothing is fetched: download the file yourself, then add it.")
    path = Path(source)
    if path.suffix.lower() not in KINDS:
        raise DataError(f"{path.name}: files of kind '{path.suffix}' cannot be added. Known: {', '.join(KINDS)}.")
    if path.is_symlink():
        raise DataError(f"{path} is a link. Add the file that it points to.")
    if not path.is_file():
        raise DataError(f"{path} is not a file." if path.exists() else f"{path} does not exist.")
    return path


def _copy(source: Path, target: Path) -> str:
    """Copy and hash in one pass, so that the hash is that of the copy. Returns the SHA-256."""
    digest, copied = hashlib.sha256(), 0
    try:
        # a link put there since the check is not followed, and a pipe is not waited for
        flags = sum(getattr(os, name, 0) for name in ("O_RDONLY", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
        descriptor = os.open(source, flags)
        with open(descriptor, "rb") as file, target.open("xb") as copy:  # noqa: PTH123
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise DataError(f"{source} is not a plain file.")
            while chunk := file.read(_CHUNK):
                copied += len(chunk)
                if copied > MAX_BYTES:
                    raise DataError(f"{source.name} is larger than {MAX_BYTES // 1024**3} GiB. Split it.")
                digest.update(chunk)
                copy.write(chunk)
    except OSError as error:
        raise DataError(f"{source} cannot be copied: {error.strerror or error}.") from error
    return digest.hexdigest()
