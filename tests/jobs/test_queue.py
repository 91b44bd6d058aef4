"""Training runs wait for their turn, in an order that can be changed, and one start is one run."""

import threading

import pytest

from studio import specs
from studio.data import registry
from studio.errors import JobError
from studio.events import Ended, Started
from studio.jobs import control, queue
from studio.jobs import folder as folders
from studio.jobs.journal import Journal, last_attempt
from studio.jobs.monitor import Monitor, view_of
from studio.specs import TrainSpec


class ByHand:
    """An executor whose workers only hold their lock, until they are told to end."""

    def __init__(self):
        self.locks, self.started = {}, []

    def start(self, folder):
        from filelock import FileLock

        lock = FileLock(folder.lock)
        lock.acquire(timeout=1)
        self.locks[folder.id] = lock
        self.started.append(folder.id)
        Journal(folder.events, last_attempt(folder.events) + 1).append(Started(pid=1, host="here"))

    def end(self, folder, state="finished"):
        Journal(folder.events, last_attempt(folder.events)).append(Ended(state=state))
        self.locks.pop(folder.id).release()


@pytest.fixture
def executor(studio_home, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"instruction": "1 + 1 = ?", "output": "2"}\n' * 3)
    registry.add(tmp_path / "rows.jsonl", "sums")
    executor = ByHand()
    yield executor
    for lock in executor.locks.values():
        lock.release()


def submit(executor, name, **training):
    wanted = {"data": {"datasets": ["sums"]}, "output": {"name": name}, "training": training}
    return control.submit(specs.parse(TrainSpec, wanted), executor=executor)


def names(jobs):
    return [job.read_about()["name"] for job in jobs]


def states(*jobs):
    return [(view_of(job).state, view_of(job).place) for job in jobs]


def test_a_second_run_waits_and_begins_when_the_first_has_ended(executor):
    first, second, third = (submit(executor, name) for name in ("first", "second", "third"))
    assert states(first, second, third) == [("running", 0), ("queued", 1), ("queued", 2)]
    assert control.advance(executor) is None, "not before its turn"
    executor.end(first)
    assert control.advance(executor).id == second.id and control.advance(executor) is None
    assert states(first, second, third) == [("finished", 0), ("running", 0), ("queued", 1)]
    assert executor.started == [first.id, second.id]


def test_a_run_that_comes_while_others_wait_waits_behind_them(executor):
    first, second = submit(executor, "first"), submit(executor, "second")
    executor.end(first)
    third = submit(executor, "third")
    assert names(queue.waiting()) == ["second", "third"] and states(third) == [("queued", 2)]
    assert control.advance(executor).id == second.id


def test_the_order_is_changed_and_a_run_is_taken_out(executor):
    _, second, _, fourth = (submit(executor, name) for name in ("first", "second", "third", "fourth"))
    queue.move(fourth.id, 1)
    assert names(queue.waiting()) == ["fourth", "second", "third"]
    queue.move(fourth.id, 99)
    assert names(queue.waiting()) == ["second", "third", "fourth"]
    control.stop(second.id)
    assert names(queue.waiting()) == ["third", "fourth"] and states(second) == [("stopped", 0)]
    assert "queue" in view_of(second).ended.message and not second.is_locked()
    with pytest.raises(JobError, match="does not wait"):
        queue.move(second.id, 1)
    with pytest.raises(JobError, match="Unknown job"):
        queue.move("nobody", 1)


def test_a_run_that_is_resumed_waits_too_and_once(executor):
    first, second = submit(executor, "first"), submit(executor, "second")
    control.stop(second.id)
    control.resume(second.id, executor=executor)
    assert states(second) == [("queued", 1)]
    with pytest.raises(JobError, match="waits in the queue already"):
        control.resume(second.id, executor=executor)
    executor.end(first, "stopped")
    assert control.advance(executor).id == second.id and states(second) == [("running", 0)]


def test_f59_starts_of_one_spec_at_once_are_one_run(executor):
    started = []
    threads = [threading.Thread(target=lambda: started.append(submit(executor, "same").id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(started)) == 1 and len(list(folders.every())) == 1 and executor.started == [started[0]]
    assert submit(executor, "same", seed=5).id != started[0], "another spec is another run"


def test_the_queue_outlives_whoever_keeps_it_and_a_damaged_place_is_the_last(executor):
    first, second, third = (submit(executor, name) for name in ("first", "second", "third"))
    second.queued.write_text("no number")
    assert names(queue.waiting()) == ["third", "second"]
    monitor = Monitor(each_round=lambda: control.advance(executor), interval_s=0.05)
    assert {view.name: view.place for view in monitor.refresh().views()} == {"first": 0, "second": 2, "third": 1}
    executor.end(first)
    monitor.start()
    try:
        for _ in range(100):
            if third.id in executor.started:
                break
            threading.Event().wait(0.05)
        assert executor.started == [first.id, third.id]
    finally:
        monitor.close()


def test_other_jobs_do_not_wait(executor):
    submit(executor, "first")
    audit = control.submit(specs.parse(specs.AuditSpec, {"dataset": "sums"}), executor=executor)
    assert states(audit) == [("running", 0)]


@pytest.mark.parametrize("rate", [0, -1, 1.5, float("nan")])
def test_a_rate_that_is_none_is_refused(executor, rate):
    first = submit(executor, "first")
    executor.end(first, "failed")
    with pytest.raises(JobError, match="rate"):
        control.resume(first.id, executor=executor, rate=rate)


def test_rates_multiply(executor):
    first = submit(executor, "first")
    for _ in range(2):
        executor.end(first, "failed")
        control.resume(first.id, executor=executor, rate=0.5)
    assert first.read_rate() == 0.25
