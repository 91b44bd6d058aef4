"""The real page, served for whoever attacks it. Not here: any attack."""

from collections.abc import Iterator

import pytest

from studio.jobs.executors.replay import Replay
from studio.ui import app
from tests.faults.intruder import MARKER, Intruder
from tests.ui.recorded import recorded


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
