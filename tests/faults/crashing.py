"""Ends a job's process at its n-th change of a file, for every n, lets it go on, and compares the outcome.

    python -m tests.faults.crashing [train|evaluate|export|register] [--harm kill|tear|term] [--every 1] [--first 1]

A change is a file opened for writing, a rename, a removal, a folder made or removed, below STUDIO_HOME. `kill` ends the
process there, `tear` also takes away half of what was written since the change before, and `term` asks it to end.
Every attempt is a fork of one process that has the engine in memory. Prints one JSON object: how many points there
are, how many were tried, and what differed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # threads do not live through a fork

CHANGES = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"})
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
WANTED = {
    "quantization": {"kind": "nf4"},
    "data": {"datasets": ["sums"], "max_length": 64, "validation_share": 0.25},
    "model": {"dtype": "fp32"},
    "method": {"rank": 2, "dropout": 0.1},
    "training": {
        "max_steps": 4,
        "batch_size": 2,
        "accumulation": 1,
        "learning_rate": 1e-2,
        "save_steps": 1,
        "save_total_limit": 2,
        "keep_best": True,
        "preflight": False,
    },
    "evaluation": {"prompts": ["1 + 1 = ?"], "max_new_tokens": 2, "steps": 2},
}


class Point:
    """Counts the changes below a folder from now on, and does harm at one of them. harm: "" for none."""

    def __init__(self, place: Path, number: int, harm: str):
        self.place, self.number, self.harm = str(place), number, harm
        self.count, self._at_it = 0, False
        self._before, self._renamed = self._files(), set[str]()
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple) -> None:
        if self._at_it or not self._is_change(event, arguments):
            return
        self.count += 1
        if event == "os.rename":
            self._renamed.add(os.fsdecode(arguments[1]))
        if self.harm == "tear":
            if self.count == self.number:
                self._at_it = True
                self._tear()
            elif self.count == self.number - 1:
                self._before = self._files()
        if self.count == self.number and self.harm:
            os.kill(os.getpid(), signal.SIGTERM if self.harm == "term" else signal.SIGKILL)

    def _is_change(self, event: str, arguments: tuple) -> bool:
        if event == "open":
            path, _, flags = arguments
            return isinstance(flags, int) and bool(flags & WRITING) and self._below(path)
        if event not in CHANGES:
            return False
        # a removal of a whole tree names what it removes by the folder that it has opened
        return self._below(arguments[0]) or not os.fsdecode(arguments[0]).startswith("/")

    def _below(self, path: Any) -> bool:
        return isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(self.place)

    def _files(self) -> dict[str, tuple[int, int]]:
        found = {}
        for folder, _, names in os.walk(self.place):
            for name in names:
                with suppress(FileNotFoundError):
                    at = os.stat(os.path.join(folder, name))  # noqa: PTH116, PTH118 - hot
                    found[os.path.join(folder, name)] = (at.st_mtime_ns, at.st_size)  # noqa: PTH118
        return found

    def _tear(self) -> None:
        """Half of what was written goes, but not of what was whole under another name before."""
        for path, (when, size) in self._files().items():
            was = self._before.get(path, (0, 0))
            if when != was[0] and size > was[1] and not path.startswith(tuple(self._renamed)):
                with suppress(FileNotFoundError):
                    os.truncate(path, was[1] + (size - was[1]) // 2)


def in_a_fork(act: Callable[[], int], place: Path, number: int = 0, harm: str = "") -> tuple[int, int]:
    """Returns: what the process ended with (128 and more: by a signal), and how many changes it made."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        log = os.open(place.parent / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        point = Point(place, number, harm)
        try:
            status = act()
        except BaseException:  # noqa: BLE001 - told by the log and the status
            traceback.print_exc()
            status = 70
        os.write(write, str(point.count).encode())
        os._exit(status)
    os.close(write)
    with os.fdopen(read) as pipe:
        count = int(pipe.read() or 0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return (code if code >= 0 else 128 - code), count


class Sweep(ABC):
    """What is done, once without harm and once for each point. Subclasses say what, and what to compare."""

    def __init__(self, home: Path, model: Path):
        self.home, self.model = home, model

    @abstractmethod
    def begin(self) -> Any:
        """Something new to act on."""

    @abstractmethod
    def act(self, thing: Any) -> int:
        """Returns: an exit status."""

    @abstractmethod
    def outcome(self, thing: Any) -> Any:
        """What must be equal."""

    def is_done(self, thing: Any) -> bool:
        """Whether it had ended well in spite of a wish to end, so that there is nothing to go on with."""
        return False


class Job(Sweep):
    kind = "train"

    def spec(self) -> Any:
        from studio import specs

        return specs.parse(specs.TrainSpec, WANTED | {"model": {"name": str(self.model), "dtype": "fp32"}})

    def begin(self) -> Any:
        from studio.home import home
        from studio.jobs import folder as folders

        shutil.rmtree(home().cache / "rows", ignore_errors=True)  # so that each run tokenises
        return folders.create(self.kind, self.spec(), self.kind)

    def act(self, thing: Any) -> int:
        from studio.jobs import worker

        thing.started.touch()
        return worker.main(str(thing.path))

    def is_done(self, thing: Any) -> bool:
        from studio.jobs.monitor import view_of

        return view_of(thing).state == "finished"

    def outcome(self, thing: Any) -> Any:
        from studio.engine.checkpoints import fault_of
        from studio.jobs.monitor import view_of

        view = view_of(thing)
        told = {
            "state": view.state,
            "losses": [step.loss for step in view.steps],
            "measured": [(each.step, each.scores) for each in view.measured],
            "samples": [(each.step, each.answer) for each in view.samples],
            "checkpoints": {step: fault_of(thing.checkpoint(step)) for step in view.saved},
            "locked": thing.is_locked(),
        }
        return told | {"adapter": digests(thing.adapter)}


class Evaluation(Job):
    kind = "evaluate"

    def __init__(self, home: Path, model: Path):
        super().__init__(home, model)
        training = Job(home, model)
        self.run = training.begin()
        in_a_fork(lambda: training.act(self.run), home)

    def spec(self) -> Any:
        from studio import specs

        return specs.EvaluateSpec(run=self.run.id, max_samples=3, max_new_tokens=3)

    def outcome(self, thing: Any) -> Any:
        from studio.jobs.monitor import view_of

        view = view_of(thing)
        scores = [(each.subject, {k: v for k, v in each.scores.items() if "second" not in k}) for each in view.measured]
        rows = [json.loads(line) for line in thing.predictions.read_text(encoding="utf-8").splitlines()]
        return {"state": view.state, "scores": scores, "rows": rows, "locked": thing.is_locked()}


class Export(Evaluation):
    kind = "export"
    made = 0

    def spec(self) -> Any:
        from studio import specs

        self.made += 1
        return specs.ExportSpec(run=self.run.id, dtype="fp32", out=str(self.home / "exports" / f"merged-{self.made}"))

    def outcome(self, thing: Any) -> Any:
        from studio.jobs.monitor import view_of

        target = Path(thing.read_spec().out)
        beside = sorted(path.name for path in target.parent.iterdir() if path.name.startswith(f".{target.name}"))
        return {"state": view_of(thing).state, "files": digests(target), "beside": beside, "locked": thing.is_locked()}


class Registration(Sweep):
    number = 0

    def begin(self) -> Any:
        self.number += 1
        return f"rows-{self.number}"

    def act(self, thing: Any) -> int:
        from studio.data import registry

        if thing not in [dataset.name for dataset in registry.every()]:
            registry.add(self.home.parent / "sums.json", thing)
        return 0

    def outcome(self, thing: Any) -> Any:
        from studio.data import registry

        found = registry.get(thing)
        others = registry.get("sums")
        rows = [len(list(registry.outcomes(dataset))) for dataset in (found, others)]
        return {"rows": rows, "hash": found.sha256, "problems": [str(each) for each in registry.problems()]}


KINDS: dict[str, type[Sweep]] = {"train": Job, "evaluate": Evaluation, "export": Export, "register": Registration}


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file, but of those that hold a time."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix == ".safetensors"
    }


def swept(sweep: Sweep, harm: str, every: int, first: int) -> Iterator[tuple[int, Any]]:
    """(number of the point, what differs or None) for each that is tried; the first is (0, how many there are)."""
    for _ in range(2):  # the first also writes what is measured once in a home
        whole = sweep.begin()
        status, count = in_a_fork(lambda thing=whole: sweep.act(thing), sweep.home)
        wanted = sweep.outcome(whole)
        if status:
            raise SystemExit(f"it does not even end without harm: {status}, {wanted}")
    yield 0, count
    for number in range(first, count + 1, every):
        thing = sweep.begin()
        status, _ = in_a_fork(lambda thing=thing: sweep.act(thing), sweep.home, number, harm)
        ended = (128 + signal.SIGKILL,) if harm != "term" else (0, 128 + signal.SIGTERM)
        if status not in ended:
            yield number, f"the harmed process ended with {status}"
            continue
        if harm != "term" or not sweep.is_done(thing):
            status, _ = in_a_fork(lambda thing=thing: sweep.act(thing), sweep.home)
        found = sweep.outcome(thing)
        yield number, None if found == wanted else f"ended with {status}; {differing(wanted, found)}"


def differing(wanted: Any, found: Any) -> str:
    return "; ".join(
        f"{key}: {found.get(key)} instead of {wanted[key]}" for key in wanted if found.get(key) != wanted[key]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS, nargs="?", default="train")
    parser.add_argument("--harm", choices=["kill", "tear", "term"], default="kill")
    parser.add_argument("--every", type=int, default=1, help="try every so many points")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--told", action="store_true", help="tell each point on the way")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder).resolve() / "home"
        os.environ["STUDIO_HOME"] = str(home)
        import torch

        torch.set_num_threads(1)
        import studio.engine.evaluation.answers
        import studio.engine.export
        import studio.engine.stack  # noqa: F401
        from studio.data import registry
        from tests.engine.conftest import make

        rows = [{"instruction": f"{a} + {b} = ?", "output": f"It is {a + b}."} for a in range(6) for b in range(4)]
        (home.parent / "sums.json").write_text(json.dumps(rows))
        registry.add(home.parent / "sums.json", "sums")
        model = make("llama", home.parent / "llama")
        found = swept(KINDS[asked.kind](home, model), asked.harm, asked.every, asked.first)
        _, count = next(found)
        tried, wrong = 0, {}
        for number, fault in found:
            tried += 1
            if asked.told:
                print(number, fault or "equal", flush=True)
            if fault:
                wrong[number] = fault
        print(json.dumps({"kind": asked.kind, "harm": asked.harm, "points": count, "tried": tried, "differing": wrong}))


if __name__ == "__main__":
    main()
