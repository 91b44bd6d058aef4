"""Where things live on disk: the checkout's own folders and STUDIO_HOME.

Not here: paths inside a job's folder (studio.jobs.folder).
"""

import errno
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from studio.errors import StudioError

CHECKOUT = Path(__file__).resolve().parent.parent
SHIPPED_DATA = CHECKOUT / "data"
SHIPPED_TEMPLATES = CHECKOUT / "templates"
SHIPPED_PRESETS = Path(__file__).resolve().parent / "presets"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)}


@dataclass(frozen=True)
class Home:
    """The folders under STUDIO_HOME. Made on first use."""

    path: Path

    def _folder(self, name: str) -> Path:
        folder = self.path / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudioError(
                f"Cannot write to {folder}: {error.strerror}. Set STUDIO_HOME to a folder you can write to."
            ) from error
        if not os.access(folder, os.W_OK):
            raise StudioError(
                f"Cannot write to {folder}: it is read-only. Set STUDIO_HOME to a folder you can write to."
            )
        return folder

    @property
    def jobs(self) -> Path:
        return self._folder("jobs")

    @property
    def uploads(self) -> Path:
        return self._folder("uploads")

    @property
    def datasets(self) -> Path:
        return self._folder("datasets")

    @property
    def exports(self) -> Path:
        return self._folder("exports")

    @property
    def models(self) -> Path:
        return self._folder("models")

    @property
    def own_templates(self) -> Path:
        """Made when the first is saved: to list templates nobody needs a place to write."""
        return self.path / "templates"

    @property
    def cache(self) -> Path:
        """What can be made anew: nobody misses it but for the time."""
        return self._folder("cache")

    @property
    def run(self) -> Path:
        """Small files of running servers: addresses and logs."""
        return self._folder("run")


def home() -> Home:
    """STUDIO_HOME, or `workspace/` in the checkout. Read anew each time, so that tests and shells can set it."""
    return Home(Path(os.environ.get("STUDIO_HOME") or CHECKOUT / "workspace").expanduser().resolve())


def checked_name(name: str, what: str = "name") -> str:
    """The name itself if it is safe as a file name on every system.

    Raises: StudioError: it is not; the text gives the allowed pattern.
    """
    stem = name.split(".")[0].lower() if isinstance(name, str) else ""
    if not isinstance(name, str) or not NAME.fullmatch(name) or stem in _RESERVED or name.endswith("."):
        raise StudioError(
            f"'{str(name)[:80]}' cannot be a {what}. Use 1 to 64 letters, digits, dots, dashes or underscores, "
            "starting with a letter or digit."
        )
    return name


def refused(error: OSError, place: Path) -> str:
    """What the system has against writing somewhere, as the beginning of a sentence."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"{'Disk full' if full else error.strerror or error} at {place}"


def write_atomically(path: Path, text: str) -> None:
    """Write a small file so that a reader, or a crash, sees the old text or the new one, never half of it."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with scratch.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
