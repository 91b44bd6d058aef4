import socket
import subprocess
import sys

import httpx
import pytest

from studio.errors import StudioError
from studio.jobs.monitor import Monitor
from studio.ui import app


@pytest.fixture
def demo(studio_home):
    return app.build(monitor=Monitor())


def test_the_page_is_built_without_the_training_stack():
    code = (
        "import sys\n"
        "from studio.jobs.monitor import Monitor\n"
        "from studio.ui import app\n"
        "app.build(monitor=Monitor())\n"
        "heavy = {'torch', 'transformers', 'trl', 'peft', 'bitsandbytes', 'datasets'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_the_public_names_are_these(demo):
    names = {name.lstrip("/") for name in demo.get_api_info()["named_endpoints"]}
    assert names == {"list_jobs", "job", "start_training", "stop_job", "resume_job", "list_datasets"}


def test_no_event_is_public_by_accident(demo):
    api = {"list_jobs", "job", "start_training", "stop_job", "resume_job", "list_datasets"}
    public = {fn.api_name for fn in demo.fns.values() if fn.api_visibility == "public"}
    assert public == api


def test_every_tab_is_there_in_order():
    names = [tab.__name__.rpartition(".")[2] for tab in app.TABS]
    assert names == ["data", "template", "train", "evaluate", "chat", "export"]


def test_a_taken_port_names_a_free_one(studio_home):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StudioError, match=rf"Port {port} is in use\. Try --port \d+"):
            app.serve(port=port)


def test_the_page_asks_for_nothing_outside_this_machine(studio_home):
    served = app.serve(port=0)
    try:
        page = httpx.get(served.url).text
        assert "fonts.googleapis" not in page
        assert httpx.get(served.url + "/config").json()["analytics_enabled"] is False
    finally:
        served.close()


@pytest.mark.parametrize(("path", "locale"), [("/?lang=zh", "zh-CN"), ("/?lang=en", "en"), ("/?lang=<script>", "en")])
def test_the_language_of_the_address_is_told_to_the_page(studio_home, path, locale):
    served = app.serve(port=0)
    try:
        page = httpx.get(served.url + path, headers={"accept-language": "en"})
        assert f'get: () => "{locale}"' in page.text
        assert page.headers["content-type"].startswith("text/html")
    finally:
        served.close()
