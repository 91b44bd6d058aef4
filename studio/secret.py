"""Secrets of the environment: which variables hold one, and texts without their values.

They are passed on to nobody who does not need them, and no file of a job may hold one. Not here: the page's own
password (studio.ui.login) and the chat server's token (studio.serving.address).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import Any

_NAMES = re.compile(
    r"TOKEN(?!IZERS)|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|COOKIE|API_?KEY|(ACCESS|PRIVATE|AUTH|SIGNING)_KEY"
    r"|_KEY$|_PWD$|_PAT$|_DSN$|DATABASE_URL|SSH_AUTH"
)
_ARGUMENTS = re.compile(r"(^|_)(hub_token|auth_token|access_token|api_key|password|passwd|secret|credentials?)($|_)")
_LEAST = 8
"""A shorter value could be any word, and is left as it is."""
HIDDEN = "***"


def is_secret(name: str) -> bool:
    """Whether an environment variable of this name is likely to hold a secret."""
    return bool(_NAMES.search(name.upper()))


def is_secret_argument(name: str) -> bool:
    """Whether an argument of a library is for a secret. `eos_token` is none."""
    return bool(_ARGUMENTS.search(name.lower()))


def values(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The secrets of an environment, by the name of their variable."""
    found = os.environ if environment is None else environment
    return {name: value for name, value in found.items() if is_secret(name) and len(value) >= _LEAST}


def scrubbed(text: str) -> str:
    """The text without the values of secrets."""
    for value in values().values():
        text = text.replace(value, HIDDEN)
    return text


def scrub_output() -> None:
    """From here on nothing that Python prints in this process holds a secret. What C code prints is not seen."""
    if values() and not isinstance(sys.stdout, _Scrubbing):
        sys.stdout, sys.stderr = _Scrubbing(sys.stdout), _Scrubbing(sys.stderr)  # type: ignore[assignment]


class _Scrubbing:
    """A text stream whose writes are scrubbed."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(scrubbed(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
