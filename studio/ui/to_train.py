"""A button of another tab that fills fields of the Train form and goes there. Not here: the form (studio.ui.form)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from studio.ui.page import Page, guarded
from studio.ui.tabs import train

GO_THERE = """() => {
  const address = new URL(location);
  address.searchParams.set("tab", "train");
  history.pushState(null, "", address);
  scrollTo({ top: 0 });
}"""


def wire(
    page: Page,
    form: train.Widgets,
    button: gr.Button,
    inputs: Sequence[Any],
    paths: Sequence[str],
    written: Callable[..., Mapping[str, Any]],
    *,
    name: str,
) -> None:
    """Make the button write `written(*inputs)`, an update for each of the paths, into the form, and show it."""
    fields = [form.form[path] for path in paths]

    def fill(*values: Any) -> list[Any]:
        updates = written(*values)
        return [*(updates[path] for path in paths), gr.Tabs(selected="train")]

    filled = button.click(
        guarded(fill), list(inputs), [*fields, page.tab_set], preprocess=False, show_progress="hidden",
        api_name=name, api_visibility="private",
    )  # fmt: skip
    filled.success(**train.describing(page, form), api_name=f"{name}_described")
    filled.success(None, None, None, js=GO_THERE, api_visibility="private")
