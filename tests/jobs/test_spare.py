"""A worker that waits for its job, as a process of its own."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from studio import specs
from studio.data import registry
from studio.jobs import folder as folders
from studio.jobs.executors import local
from studio.jobs.monitor import view_of
from studio.specs import AuditSpec


@pytest.fixture
def folder(studio_home, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"instruction": "1 + 1 = ?", "output": "2"}\n' * 3)
    registry.add(tmp_path / "rows.jsonl", "sums")
    return folders.create("audit", specs.parse(AuditSpec, {"dataset": "sums"}), "audit-sums")


@pytest.fixture
def executor(monkeypatch):
    """The executor with no spare worker yet, which hands over jobs of each kind: an audit ends in a second."""
    spare = local._Spare()
    monkeypatch.setattr(local, "_spare", spare)
    monkeypatch.setattr(local, "_computes", lambda folder: True)
    yield local
    spare._leave()


def waiting(code="from studio.jobs import spare; sys.exit(spare.main())"):
    return subprocess.Popen([sys.executable, "-c", f"import sys; {code}"], stdin=subprocess.PIPE)


def finished(folder):
    until = time.monotonic() + 60
    while not (view := view_of(folder)).ended:
        assert time.monotonic() < until, "the job does not end"
        time.sleep(0.05)
    return view


def pid_of(folder):
    return int(folder.events.read_text().partition('"pid":')[2].partition(",")[0])


def ends(pid):
    try:
        psutil.Process(pid).wait(30)
    except psutil.NoSuchProcess:
        return True
    return not psutil.pid_exists(pid)


def test_it_waits_through_signs_and_does_the_job_that_comes(folder):
    process = waiting()
    for line in (b"\n", b"\n", os.fsencode(folder.path) + b"\n"):
        process.stdin.write(line)
        process.stdin.flush()
    assert process.wait(60) == 0
    assert finished(folder).state == "finished" and pid_of(folder) == process.pid


def test_it_ends_when_whoever_started_it_has_ended(studio_home):
    process = waiting()
    process.stdin.close()
    assert process.wait(30) == 0


def test_it_ends_when_nothing_came_for_a_while(studio_home):
    process = waiting("from studio.jobs import spare; spare.PATIENCE_S = 0.2; sys.exit(spare.main())")
    assert process.wait(30) == 0


def test_a_started_job_is_the_spare_worker_s_and_its_log_too(folder, executor, monkeypatch):
    executor.warm()
    pid = executor._spare._process.pid
    monkeypatch.setenv("GRADIO_TEMP_DIR", "set while the page begins")
    executor.warm()
    assert executor._spare._process.pid == pid, "there is one"
    executor.start(folder)
    assert finished(folder).state == "finished" and pid_of(folder) == pid
    assert folder.log.is_file() and executor._spare._process is None


def test_a_job_is_started_anew_where_the_spare_worker_was_killed_or_has_another_environment(
    folder, executor, monkeypatch
):
    executor.warm()
    killed = executor._spare._process
    killed.send_signal(signal.SIGKILL)
    killed.wait(30)
    executor.start(folder)
    assert finished(folder).state == "finished" and pid_of(folder) != killed.pid
    executor.warm()
    other = executor._spare._process.pid
    monkeypatch.setenv("HF_TOKEN", "a new one")
    again = folders.create("audit", folder.read_spec(), "audit-sums")
    executor.start(again)
    assert finished(again).state == "finished" and pid_of(again) != other
    assert ends(other)


def test_it_ends_with_a_server_that_is_killed(studio_home):
    said = (
        "import time; from studio.jobs.executors import local; local.warm();"
        "print(local._spare._process.pid, flush=True); time.sleep(60)"
    )
    server = subprocess.Popen([sys.executable, "-c", said], stdout=subprocess.PIPE, text=True)
    pid = int(server.stdout.readline())
    assert psutil.pid_exists(pid)
    server.kill()
    server.wait(30)
    assert ends(pid)
