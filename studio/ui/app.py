"""The page: the list of tabs, how it is built, and how it is served.

Not here: what a tab holds (studio.ui.tabs), and any computation: long work is a job in a process of its own.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from studio.errors import StudioError
from studio.home import home
from studio.jobs import control
from studio.jobs.control import Executor
from studio.jobs.executors import local
from studio.jobs.monitor import Monitor
from studio.serving import gate
from studio.ui import api, login, security
from studio.ui.charts import PLOTLY
from studio.ui.opening import Opening
from studio.ui.page import Page, log_file
from studio.ui.tabs import chat, data, evaluate, export, template, train
from studio.ui.texts import i18n, t

TABS = (data, template, train, evaluate, chat, export)

UPLOAD_BYTES = 8 * 1024**3
"""What the page takes in one file. From the shell there is no limit but the disk."""
SESSIONS = 128
"""Of how many open pages, and calls of the named API, the state is kept; the least recently used goes first. gradio
(6.31) keeps a megabyte for each, and would keep that of 10,000."""
QUEUE_S = 0.02
"""Between looks of gradio's queue for what was asked. It looks a thousand times a second otherwise (gradio 6.31), which
takes a sixteenth of a core from the run that is watched."""
_UPLOADS_KEPT = (3600, 24 * 3600)
"""Seconds between looks for uploaded copies, and the age from which one is deleted. Rows are stored elsewhere."""
_HERE = Path(__file__).resolve().parent
_LOG_OUT = ' · <a href="logout">Log out</a> · <a href="logout" lang="zh">退出</a>'
_LANGUAGES = '<a href="?lang=en" data-lang="en">English</a> · <a href="?lang=zh" data-lang="zh" lang="zh">中文</a>'


@dataclass(frozen=True)
class Served:
    """A page that is being served. password: what it asks for, where that was made up here."""

    url: str
    close: Callable[[], None]
    password: str | None = field(default=None, repr=False)


def build(
    *,
    monitor: Monitor | None = None,
    executor: Executor = local,
    client: Any = None,
    warm: Callable[[], None] | None = None,
    log_in: bool = False,
) -> gr.Blocks:
    """The whole page.

    monitor: one that is running already. client: another way to a chat server than our own. warm: makes the next run
    begin sooner; called often while somebody looks at the page and no run is alive. log_in: there is a way out again.
    """
    watching = monitor or Monitor().start()

    def ready() -> None:
        if warm is not None and not any(view.live for view in watching.views("train")):
            warm()

    with gr.Blocks(
        title="Finetune Studio", fill_width=True, analytics_enabled=False, delete_cache=_UPLOADS_KEPT
    ) as demo:
        with gr.Tabs(elem_id="tabs") as tab_set:
            page = Page(demo, watching, executor, tab_set, client=client, ready=ready)
            widgets = {name: _build_tab(page, name, tab) for name, tab in _named_tabs().items()}
        gr.HTML(_LANGUAGES + (_LOG_OUT if log_in else ""), elem_id="languages")
        for tab in TABS:
            tab.wire(page, widgets)
        for number, load in enumerate(page.loads):
            demo.load(
                load.fn,
                load.inputs,
                load.outputs,
                api_name=f"load_{number}",
                api_visibility="private",
                show_progress="hidden",
                concurrency_limit=None,
            )
        api.register(page)
    _without_progress(demo)
    return demo


def launch(host: str = "127.0.0.1", port: int = 7860, browser: bool = True, executor: Executor = local) -> None:
    """Serve the page until it is interrupted.

    Raises: StudioError: the port is taken.
    """
    served = serve(host, port, browser=browser, executor=executor, warm=local.warm if executor is local else None)
    if not gate.is_loopback(host):
        print(f"{host} can be reached from other machines, and the password travels unencrypted. Put TLS before it.")
    if served.password:
        print(f"The password is {served.password}  (for one of your own set STUDIO_PASSWORD)")
    print(f"Finetune Studio is at {served.url}", flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print("Closed. Runs go on; `studio ui` shows them again.")
    finally:
        served.close()


def serve(
    host: str = "127.0.0.1",
    port: int = 7860,
    *,
    browser: bool = False,
    executor: Executor = local,
    monitor: Monitor | None = None,
    client: Any = None,
    warm: Callable[[], None] | None = None,
) -> Served:
    """Serve the page from a thread of this process. port 0: any free one."""
    password, made_up = login.password_for(private=gate.is_private(host))
    port = _free_port(host, port)
    uploads = _prepare_process()
    watching = monitor or Monitor(each_round=lambda: control.advance(executor)).start()
    demo = build(executor=executor, monitor=watching, client=client, warm=warm, log_in=password is not None)
    demo.queue(default_concurrency_limit=4, max_size=256)
    demo._queue.sleep_when_free = QUEUE_S
    demo.launch(
        server_name=host,
        server_port=port,
        inbrowser=browser,
        theme=theme(),
        css_paths=_HERE / "studio.css",
        js=(_HERE / "page.js").read_text(encoding="utf-8"),
        i18n=i18n(),
        footer_links=["api", "settings"],
        run_history=False,
        ssr_mode=False,
        share=False,
        mcp_server=False,
        enable_monitoring=False,
        show_error=True,
        quiet=True,
        prevent_thread_lock=True,
        max_file_size=UPLOAD_BYTES,
        state_session_capacity=SESSIONS,
        allowed_paths=[str(home().exports)],
        app_kwargs={
            "middleware": [
                *security.middleware(
                    host, password, uploads=uploads, upload_bytes=UPLOAD_BYTES, exports=home().exports, script=PLOTLY
                ),
                Middleware(Opening),
            ]
        },
    )
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host

    def close() -> None:
        demo.server.force_exit = True  # else the event streams of an open page hold it for seconds
        demo.close(verbose=False)
        if monitor is None:
            watching.close()

    return Served(f"http://{shown}:{port}", close, password if made_up else None)


def theme() -> gr.themes.Base:
    """System fonts, small gaps, one blue accent."""
    base = gr.themes.Base(
        primary_hue="blue",
        neutral_hue="zinc",
        spacing_size="sm",
        radius_size="sm",
        text_size="md",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    return base.set(
        body_text_color_subdued="*neutral_500",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
        block_label_text_color="*neutral_800",
        block_title_text_color="*neutral_800",
        button_large_text_weight="500",
        button_small_text_weight="500",
    )


def _named_tabs() -> dict[str, Any]:
    return {tab.__name__.rpartition(".")[2]: tab for tab in TABS}


def _build_tab(page: Page, name: str, tab: Any) -> Any:
    with gr.Tab(t(f"common.tab.{name}"), id=name, elem_id=f"tab-{name}") as page.tabs[name]:
        return tab.build(page)


def _without_progress(demo: gr.Blocks) -> None:
    """Keep the browser from noting the progress of events that show none.

    gradio 6.31 notes it at every output that any event ever had, one by one, at each sign of life of each event: that
    was half of the time in which the page opens, and a part of every look at a run.
    """
    for fn in demo.fns.values():
        if fn.show_progress == "hidden":
            fn.show_progress_on = ()


def _free_port(host: str, port: int) -> int:
    """The port itself, or any free one for 0. Raises: StudioError: it is taken; the text names the next free one."""
    if port == 0 or _is_free(host, port):
        return port or _ask_for_port(host)
    other = next((each for each in range(port + 1, min(port + 100, 65_536)) if _is_free(host, each)), None)
    hint = f"Try --port {other}" if other else "Choose another with --port"
    raise StudioError(f"Port {port} is in use. {hint}")


def _is_free(host: str, port: int) -> bool:
    try:
        with socket.create_server((host.strip("[]"), port), family=_family(host)):
            return True
    except OSError:
        return False


def _ask_for_port(host: str) -> int:
    with socket.create_server((host.strip("[]"), 0), family=_family(host)) as server:
        return server.getsockname()[1]


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _prepare_process() -> Path:
    """Uploads and the log inside STUDIO_HOME; no reports to anyone. Returns: the folder of the uploads."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    uploads = home().run / "uploads"
    uploads.mkdir(exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)  # what lies there is handed out, so it is no folder of somebody else's
    handler = RotatingFileHandler(log_file(), maxBytes=2_000_000, backupCount=1, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger = logging.getLogger("studio")
    for old in [each for each in logger.handlers if isinstance(each, RotatingFileHandler)]:
        logger.removeHandler(old)
        old.close()
    logger.addHandler(handler)
    return uploads
