"""The page: the list of tabs, how it is built, and how it is served.

Not here: what a tab holds (studio.ui.tabs), and any computation: long work is a job in a process of its own.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import gradio as gr

from studio.jobs.control import Executor
from studio.jobs.executors import local
from studio.jobs.monitor import Monitor
from studio.ui.page import Page
from studio.ui.texts import i18n, t

TABS = [
    import_module(f"studio.ui.tabs.{name}")
    for name in ("data", "template", "train", "evaluate", "chat", "export")
    if find_spec(f"studio.ui.tabs.{name}")
]


def build(*, monitor: Monitor | None = None, executor: Any = local) -> gr.Blocks:
    """The whole page. monitor: one that is running already; without it, a new one is started."""
    with gr.Blocks(title="Finetune Studio", fill_width=True, analytics_enabled=False) as demo:
        with gr.Tabs(elem_id="tabs") as tab_set:
            page = Page(demo, monitor or Monitor().start(), executor, tab_set)
            widgets = {}
            for tab in TABS:
                name = tab.__name__.rpartition(".")[2]
                with gr.Tab(t(f"common.tab.{name}"), id=name, elem_id=f"tab-{name}") as page.tabs[name]:
                    widgets[name] = tab.build(page)
        for tab in TABS:
            tab.wire(page, widgets)
        for load in page.loads:
            demo.load(load.fn, load.inputs, load.outputs, api_visibility="private", show_progress="hidden")
    return demo


def launch(host: str = "127.0.0.1", port: int = 7860, browser: bool = True, executor: Executor = local) -> None:
    """Serve the page until it is interrupted."""
    demo = build(executor=executor)
    demo.launch(
        server_name=host,
        server_port=port,
        inbrowser=browser,
        i18n=i18n(),
        ssr_mode=False,
        run_history=False,
        share=False,
        quiet=True,
    )
