"""Uploads and other bodies that are too large, too slow, or not what they say."""

import asyncio
import gzip
import json
import re
import socket
import threading
from pathlib import Path

import pytest
from starlette.exceptions import HTTPException

from studio.serving.gate import Bounded
from studio.ui import security
from tests.faults.intruder import API, MARKER

BOMB = gzip.compress(b'{"text": "' + b"x" * 150_000_000 + b'"}\n', 9)


def upload(intruder, name, content):
    return intruder.http.post(f"{API}/upload", files={"files": (name, content)})


@pytest.mark.parametrize(
    "name",
    ["../../escaped.jsonl", "/etc/escaped.jsonl", "..\\..\\escaped.jsonl", "a\0b.jsonl", "~root/x.jsonl", "CON.jsonl",
     "x" * 5000 + ".jsonl", "..", ".", "%2e%2e%2fescaped.jsonl", "<img src=x onerror=alert(1)>.jsonl"],
)  # fmt: skip
def test_f22_an_uploaded_name_leads_nowhere(intruder, name):
    before = intruder.everything_outside()
    answer = upload(intruder, name, b"{}")
    assert answer.status_code in (200, 400, 403, 413, 422, 500)
    if answer.status_code == 200:
        (place,) = (Path(each) for each in answer.json())
        assert place.resolve() == place and place.is_relative_to(intruder.home / "run" / "uploads")
        assert len(place.relative_to(intruder.home / "run" / "uploads").parts) == 2
    assert intruder.everything_outside() == before


def test_f20_a_body_that_says_it_is_too_large_is_refused_before_it_is_read(intruder):
    for route, size in ((f"{API}/upload", 10**15), (f"{API}/queue/join", 10**9), ("/", 10**9), ("/config", 10**12)):
        assert _status(intruder, route, size) == 413, route


def _status(intruder, route, size):
    host, port = intruder.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = f"POST {route} HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-length: {size}\r\n\r\n"
        connection.sendall(head.encode())
        return int(connection.recv(4096).split()[1])


def test_f20_a_body_that_does_not_say_how_large_it_is_is_counted(intruder):
    before = _memory_mib()
    for route in (f"{API}/queue/join", f"{API}/call/start_training", f"{API}/component_server", f"{API}/run/job"):
        answer = intruder.http.post(route, content=(b"x" * 1024**2 for _ in range(200)))
        assert answer.status_code in (400, 413), route
    assert _memory_mib() - before < 150


def test_f20_what_of_an_upload_is_no_file_is_not_kept_in_memory(intruder):
    for field in ("x", "filename", 'x"; filenam="y'):
        answer = intruder.http.post(f"{API}/upload", data={field: "y" * 100_000}, files={"files": ("a.jsonl", b"{}")})
        assert answer.status_code == 413 and "At most" not in answer.text.replace("at most", ""), field
    assert (
        intruder.http.post(f"{API}/upload", files=[("files", (f"{n}.txt", b"x")) for n in range(300)]).status_code
        == 200
    )


@pytest.mark.parametrize(
    "content", [b"", b"--x", b"--x\r\n\r\n", b"\r\n--x--\r\n", b"--x\r\nContent-Disposition: form-data; name="]
)
def test_an_upload_that_is_none_is_refused(intruder, content):
    answer = intruder.http.post(
        f"{API}/upload", content=content, headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert answer.status_code in (200, 400) and "Traceback" not in answer.text


def test_an_upload_leaves_room_on_the_disk(tmp_path, monkeypatch):
    free = security.DISK_RESERVE + 1000
    monkeypatch.setattr(security.shutil, "disk_usage", lambda path: type("Usage", (), {"free": free}))
    (bounded,) = (
        each for each in security.middleware(
            "127.0.0.1", None, uploads=tmp_path, upload_bytes=10**6, exports=tmp_path, script=tmp_path
        ) if each.cls is Bounded
    )  # fmt: skip
    assert bounded.kwargs["limit"](security.UPLOAD) == 1000
    assert bounded.kwargs["limit"]("/gradio_api/queue/join") == security.BODY_BYTES


def test_a_body_of_which_nothing_more_comes_is_given_up():
    async def page(scope, receive, send):
        while (await receive()).get("more_body"):
            pass

    async def slow():
        while True:
            await asyncio.sleep(10)

    scope = {"type": "http", "path": "/", "headers": []}
    with pytest.raises(HTTPException) as raised:
        asyncio.run(Bounded(page, lambda path: 100, pause_s=0.02)(scope, slow, None))
    assert raised.value.status_code == 408


def taken(intruder, name, content):
    """What the page says of an uploaded file."""
    (place,) = upload(intruder, name, content).json()
    file = {"path": place, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
    (told,) = intruder.fire([{"fn_index": intruder.number("data_upload"), "data": [[file], None, None]}])
    return told


def test_f20_an_uploaded_bomb_is_refused_within_little_memory(intruder):
    assert len(BOMB) < 200_000
    before, peak, stop = _memory_mib(), [0.0], threading.Event()

    def watch():
        while not stop.wait(0.005):
            peak[0] = max(peak[0], _memory_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    told = taken(intruder, "bomb.jsonl.gz", BOMB)
    stop.set()
    watcher.join()
    assert "declares 143 MiB" in told.text
    assert peak[0] - before < 80


def _memory_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("rows.jsonl", b"PK\x03\x04....xl/workbook.xml", "Excel workbook"),
        ("rows.jsonl", b"\x80\x04\x95\x00", "pickle"),
        ("rows.pkl", b"\x80\x04\x95\x00", "pickle can run code|cannot be read|file type|Invalid file type"),
        ("rows.jsonl", b"\x7fELF\x02\x01", "not|cannot"),
    ],
)
def test_f23_an_upload_that_could_run_or_unpack_is_refused(intruder, name, content, reason):
    told = taken(intruder, name, content)
    assert re.search(reason, told.text)
    assert MARKER not in told.text and "Traceback" not in told.text


def test_uploads_that_were_not_registered_leave_no_dataset(intruder):
    assert {each["name"] for each in json.loads(intruder.call("list_datasets").text)[0]} >= {"identity-en"}
    assert not list((intruder.home / "datasets").glob("*.json"))
