"""The page. Gradio is imported here first, without the work that it does for editors.

gradio (6.31) parses the source of each of its components at every import, to write an interface file beside it: that is
more than half of the time. It passes over a class whose file cannot be told. Not here: what the page holds.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def _no_interface_files() -> Iterator[None]:
    getfile = inspect.getfile

    def of_others(thing: Any) -> str:
        if isinstance(thing, type) and type(thing).__module__ == "gradio.component_meta":
            raise OSError(f"{thing} is not looked at")
        return getfile(thing)

    inspect.getfile = of_others
    try:
        yield
    finally:
        inspect.getfile = getfile


with _no_interface_files():
    import gradio  # noqa: F401
