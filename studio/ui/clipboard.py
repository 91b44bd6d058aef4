"""A text of the server into the browser's clipboard, and a place that says whether it got there.

Not here: the text, and the button (studio.ui.tabs.template).
"""

from __future__ import annotations

import html

import gradio as gr

from studio.ui.texts import say

COPY = """async (text) => {
  const told = document.querySelector(".copied");
  const tell = (key) => told && (told.textContent = told.dataset[key]);
  try {
    await navigator.clipboard.writeText(text);
    tell("done");
  } catch {
    // without TLS there is no clipboard; the older way asks for a selected box
    const box = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(box);
    box.select();
    tell(document.execCommand("copy") ? "done" : "failed");
    box.remove();
  }
}"""


def place(request: gr.Request) -> str:
    """The place; the browser fills it in."""
    done, failed = (html.escape(say(f"template.{key}", request)) for key in ("copied", "not_copied"))
    return f"<p class='quiet copied' role='status' data-done='{done}' data-failed='{failed}'></p>"
