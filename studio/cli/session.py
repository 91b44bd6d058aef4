"""What the commands use of the outside, so that a test can hand in something else. Not here: any command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Session:
    """executor: where workers run; None is this machine. client: the way to the chat server; None is the real one."""

    executor: Any = None
    client: Any = None

    def get_executor(self) -> Any:
        if self.executor is not None:
            return self.executor
        from studio.jobs.executors import local

        return local

    def get_client(self) -> Any:
        if self.client is not None:
            return self.client
        from studio.serving import client

        return client
