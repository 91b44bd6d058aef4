"""The page. Gradio is imported here first, without what takes most of that time and is of no use here.

gradio (6.31) parses the source of each of its components at every import, to write an interface file for editors beside
it; it passes over a class whose file cannot be told. And Python looks for garbage again and again among things that
stay. Not here: what the page holds.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from studio.importing import without_garbage


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


with _no_interface_files(), without_garbage():
    import gradio  # noqa: F401
