"""What every tab is handed: the page, the monitor, the executor, and the one way in which handlers report errors.

Not here: any widget (studio.ui.tabs), and how the page is served (studio.ui.app).
"""

from __future__ import annotations

import html
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.home import home
from studio.jobs.control import Executor
from studio.jobs.monitor import Monitor

log = logging.getLogger("studio.ui")

AllWidgets = Mapping[str, Any]
"""Each tab's Widgets by the tab's name: `all["train"].run`."""


@dataclass(frozen=True)
class Load:
    """One function to run whenever a browser opens the page."""

    fn: Callable
    inputs: Any
    outputs: Any


@dataclass(frozen=True)
class Page:
    """The page while it is built. tabs: the gr.Tab of each name, so that a tab can refresh when it is selected.

    client: the way to the chat server, with the functions of studio.serving.client; None is that module itself. ready:
    called while somebody looks at runs, so that the next one begins sooner.
    """

    demo: gr.Blocks
    monitor: Monitor
    executor: Executor
    tab_set: gr.Tabs | None = None
    tabs: dict[str, gr.Tab] = field(default_factory=dict)
    loads: list[Load] = field(default_factory=list)
    client: Any = None
    ready: Callable[[], None] = lambda: None

    def on_load(self, fn: Callable, inputs: Any = None, outputs: Any = None) -> None:
        """Run fn when a browser opens the page. It only reads; it is guarded and private."""
        self.loads.append(Load(guarded(fn), inputs, outputs))


def guarded(fn: Callable) -> Callable:
    """A handler whose StudioError shows as its own text, and whose bugs are logged whole and shown as one line."""
    if inspect.isasyncgenfunction(fn):

        @wraps(fn)
        async def stream(*args: Any, **kwargs: Any) -> Any:
            with _told(fn):
                async for item in fn(*args, **kwargs):
                    yield item

        return stream
    if inspect.iscoroutinefunction(fn):

        @wraps(fn)
        async def later(*args: Any, **kwargs: Any) -> Any:
            with _told(fn):
                return await fn(*args, **kwargs)

        return later
    if inspect.isgeneratorfunction(fn):

        @wraps(fn)
        def each(*args: Any, **kwargs: Any) -> Iterator[Any]:
            with _told(fn):
                yield from fn(*args, **kwargs)

        return each

    @wraps(fn)
    def once(*args: Any, **kwargs: Any) -> Any:
        with _told(fn):
            return fn(*args, **kwargs)

    return once


@contextmanager
def _told(fn: Callable) -> Iterator[None]:
    try:
        yield
    except StudioError as error:
        raise shown(str(error)) from error
    except gr.Error:
        raise
    except Exception as error:
        log.exception("%s failed", getattr(fn, "__qualname__", fn))
        raise shown(f"Something went wrong ({type(error).__name__}). The whole story is in {log_file()}.") from error


def shown(text: str) -> gr.Error:
    """A message that stays until it is closed. Escaped, because the browser renders tags in it."""
    return gr.Error(html.escape(text).replace("\n", "<br>"), duration=None, print_exception=False)


def log_file() -> Path:
    """Where the page's own log is."""
    return home().run / "ui.log"
