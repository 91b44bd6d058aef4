"""The faults of processes, by their number in the fault matrix: killed, suspended, noisy, and mistaken for others."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
from filelock import FileLock

from studio import specs
from studio.events import Ended, Note, Started
from studio.jobs import control, journal, monitor
from studio.jobs import folder as folders
from studio.jobs.executors import local
from studio.jobs.folder import JobFolder
from studio.jobs.journal import Journal, tail
from studio.jobs.monitor import Monitor, view_of
from studio.specs import AuditSpec, TrainSpec
from tests.jobs.test_queue import ByHand


@pytest.fixture
def job(studio_home):
    return folders.create("train", specs.parse(TrainSpec, {"data": {"datasets": ["sums"]}}), "job")


def until(condition, patience_s=60):
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def test_f57_a_job_outlives_the_server_that_started_it_and_the_next_one_shows_it(add, studio_home):
    add([{"instruction": "1 + 1 = ?", "output": "2"}] * 20_000, name="many")
    said = (
        "import time; from studio import specs; from studio.jobs import control;"
        "print(control.submit(specs.parse(specs.AuditSpec, {'dataset': 'many'})).id, flush=True); time.sleep(60)"
    )
    server = subprocess.Popen([sys.executable, "-c", said], stdout=subprocess.PIPE, text=True)
    folder = folders.find(server.stdout.readline().strip())
    until(folder.is_locked)
    server.kill()
    server.wait(30)
    shown = Monitor(interval_s=0.05).start()
    try:
        assert shown.get(folder.id) is not None
        until(lambda: shown.get(folder.id).state == "finished")
    finally:
        shown.close()


def test_f58_a_worker_that_writes_a_megabyte_to_stderr_while_nobody_reads_goes_on(tmp_path):
    with (tmp_path / "worker.log").open("ab") as log:
        noisy = "import sys; sys.stderr.write('x' * 2**20); sys.stderr.flush()"
        process = local.detach("timeit", "-n", "1", "-r", "1", noisy, log=log)
        assert process.wait(30) == 0
    assert (tmp_path / "worker.log").stat().st_size > 2**20


def test_f60_a_stale_lock_and_a_reused_process_id_are_seen_as_such_and_nobody_is_signalled(job, monkeypatch):
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    sent = []
    monkeypatch.setattr(os, "kill", lambda *arguments: sent.append(arguments))
    try:
        job.lock.touch()  # as a killed worker leaves it
        Journal(job.events, 1).append(Started(pid=bystander.pid, host="here", time=time.time() - 100))
        about = json.loads(job.about.read_text()) | {"created": time.time() - 100}
        job.about.write_text(json.dumps(about))
        assert view_of(job).state == "interrupted" and not job.is_locked()
        with pytest.raises(Exception, match="is not running"):
            control.stop(job.id)
        executor = ByHand()
        control.resume(job.id, executor=executor)
        assert view_of(job).state == "running"
        executor.end(job)
        assert bystander.poll() is None and sent == []
    finally:
        monkeypatch.undo()
        bystander.kill()
        bystander.wait(30)


def test_f62_a_suspended_worker_is_stalled_and_goes_on(job, monkeypatch):
    monkeypatch.setattr(monitor, "BEATS_LOST_S", 1.0)
    said = (
        "import sys, time; from pathlib import Path; from filelock import FileLock;"
        "from studio.jobs import worker; from studio.jobs.folder import JobFolder;"
        "from studio.jobs.journal import Journal; from studio.events import Started;"
        "worker.BEAT_S = 0.1; folder = JobFolder(Path(sys.argv[1])); lock = FileLock(folder.lock); lock.acquire();"
        "Journal(folder.events, 1).append(Started(pid=1, host='here'));"
        "beating = worker._beating(folder); beating.__enter__(); print('on', flush=True); time.sleep(60)"
    )
    worker = subprocess.Popen([sys.executable, "-c", said, str(job.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert worker.stdout.readline() == "on\n" and view_of(job).state == "running"
        worker.send_signal(signal.SIGSTOP)
        until(lambda: view_of(job).state == "stalled")
        worker.send_signal(signal.SIGCONT)
        until(lambda: view_of(job).state == "running")
    finally:
        worker.kill()
        worker.wait(30)


@pytest.mark.parametrize(("memory", "state"), [(False, "killed"), (True, "out_of_memory")])
def test_a_worker_that_the_system_ended_is_told_from_one_that_somebody_killed(job, monkeypatch, memory, state):
    kills = iter([3, 4 if memory else 3])
    monkeypatch.setattr(local, "memory_kills", lambda: next(kills))
    ending = local._Ending(job)
    Journal(job.events, 1).append(Started(pid=1, host="here"))
    ending(-signal.SIGKILL)
    assert view_of(job).state == state and not view_of(job).live


def test_a_long_step_is_not_stalled(job, monkeypatch):
    from studio.events import Step

    kept = Journal(job.events, 1)
    kept.append(Started(pid=1, host="here", time=time.time() - 1000))
    for step in (1, 2, 3):
        told = Step(step=step, epoch=0, loss=1.0, learning_rate=1e-3, seconds=90.0, time=time.time() - 300)
        kept.append(told)
    with FileLock(job.lock):
        job.heartbeat.touch()
        assert view_of(job).state == "running", "five of its steps take longer than it has been quiet"
        monkeypatch.setattr(monitor, "STALLED_STEPS", 2.0)
        assert view_of(job).state == "stalled"


def test_f53_an_event_waits_for_room_and_is_written_whole(job, monkeypatch):
    monkeypatch.setattr(journal, "WAIT_S", 0.02)
    kept, full = Journal(job.events, 1), threading.Event()
    kept.append(Note(text="before"))
    real, torn = kept._file, []

    class Full:
        """A disk that takes half a line, and then nothing, until there is room."""

        name = real.name

        def fileno(self):
            return real.fileno()

        def write(self, line):
            if full.is_set():
                return real.write(line)
            torn.append(real.write(line[: len(line) // 2]))
            return torn[-1]

    kept._file = Full()
    threading.Timer(0.2, full.set).start()
    kept.append(Ended(state="finished"))
    events, _, skipped = tail(job.events)
    assert len(torn) > 1 and [event.type for event in events] == ["note", "ended"] and skipped == 0


def test_f53_without_room_for_long_the_disk_is_named(job, monkeypatch):
    monkeypatch.setattr(journal, "PATIENCE_S", 0.0)
    kept = Journal(job.events, 1)
    kept._file.close()
    try:
        kept._file = open("/dev/full", "ab", buffering=0)  # noqa: PTH123, SIM115 - a device
    except OSError:
        pytest.skip("no /dev/full here")
    monkeypatch.setattr(os, "ftruncate", lambda *_: None)
    with pytest.raises(OSError, match="No space left"):
        kept.append(Note(text="lost"))


@pytest.mark.gpu
def test_f65_a_gpu_that_runs_out_of_memory_is_recovered_from(tiny, dataset, run):
    import torch

    from studio.events import Step
    from tests.engine.test_train import spec

    wanted = spec(tiny(), dataset, training={"batch_size": 8, "accumulation": 1})
    run(wanted)
    whole = [step.loss for step in run.of(Step)]
    torch.cuda.empty_cache()
    share = 1.1 * torch.cuda.memory_allocated() / torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(max(share, 1e-4))
    try:
        other = type(run)(run.record.parent.with_name("other"))
        other(wanted)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert [step.loss for step in other.of(Step)] == pytest.approx(whole, rel=1e-2)
    assert any("memory" in note.text.lower() for note in other.of(Note))


def test_an_unreadable_exit_tells_nothing(job):
    Journal(job.events, 1).append(Started(pid=1, host="here"))
    for text in ("", "[]", '{"status": "x"}', '{"status": -15, "memory": true}'):
        job.exit.write_text(text)
        assert view_of(job).state in ("starting", "interrupted")


def test_processes_of_jobs_that_ended_are_reaped(add):
    add([{"instruction": "1 + 1 = ?", "output": "2"}], name="one")
    folder: JobFolder = control.submit(specs.parse(AuditSpec, {"dataset": "one"}))
    assert control.wait(folder).state == "finished"
    until(lambda: not [each for each in psutil.Process().children() if each.status() == psutil.STATUS_ZOMBIE])
