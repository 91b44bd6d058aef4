"""What the fault matrix is tried on: a tiny model, rows that are registered, a run, the shell, and the served page."""

import json
import socket
from collections.abc import Iterator

import pytest

from studio.cli import main
from studio.cli.session import Session
from studio.data import registry
from studio.jobs.executors.replay import Replay
from studio.ui import app
from tests.engine.conftest import dataset, one_precision, tiny  # noqa: F401 - fixtures
from tests.engine.test_train import Run
from tests.examples import training
from tests.faults.intruder import MARKER, Intruder
from tests.ui.recorded import recorded


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


@pytest.fixture
def shell(capsys, studio_home):
    """shell("data", "add", …) -> (exit status, stdout, stderr), and nothing raw in either. Jobs are only replayed."""

    def studio(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(arguments, session=Session(Replay(training(), speed=1000)))
        told = capsys.readouterr()
        assert "Traceback" not in told.out + told.err
        return ended.value.code or 0, told.out, told.err

    return studio


@pytest.fixture
def add(studio_home, tmp_path):
    """add(rows, name="rows") -> a registered dataset. A row that is text is written as it is."""

    def register(rows, name="rows", **options):
        path = tmp_path / f"{name}.jsonl"
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return registry.add(path, name, **options)

    return register


@pytest.fixture
def no_network(monkeypatch):
    """Whatever asks for an address beyond this machine fails the test."""

    def refuse(*_, **__):
        raise AssertionError("something reached for the network")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def intruder(tmp_path_factory) -> Iterator[Intruder]:
    """Against a page on loopback, as it is without any setting."""
    world = tmp_path_factory.mktemp("world")
    (world / "outside").mkdir()
    for name in ("secret", "secret.jsonl", "spec.yaml", "job.json", "config.json"):
        (world / "outside" / name).write_text(f'{{"text": "{MARKER}", "kind": "train", "name": "x", "created": 1}}\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIO_HOME", str(world / "home"))
        patch.delenv("STUDIO_PASSWORD", raising=False)
        patch.delenv("STUDIO_HOSTS", raising=False)
        served = app.serve(port=0, executor=Replay(recorded(8), speed=1000))
        try:
            yield Intruder(served.url, world)
        finally:
            served.close()
