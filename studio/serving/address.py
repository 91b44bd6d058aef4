"""Where the chat server can be reached: a small file under STUDIO_HOME that only its owner can read."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from studio.home import home


@dataclass(frozen=True)
class Address:
    """base and quantization: what the server holds, so that a client knows whether it needs another one."""

    url: str
    token: str
    base: str
    quantization: str = "none"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))


def address_file() -> Path:
    return home().run / "chat.json"


def lock_file() -> Path:
    return home().run / "chat.lock"


def log_file() -> Path:
    return home().run / "chat.log"


def read() -> Address | None:
    """The address in the file, or None if there is none that can be read."""
    try:
        return Address(**json.loads(address_file().read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
