"""From events to views."""

import os
import time

import pytest
from filelock import FileLock

from studio.events import Ended, Measured, Note, Plan, Sample, Started, Step
from studio.jobs import folder as folders
from studio.jobs import monitor as monitor_module
from studio.jobs.journal import Journal, tail
from studio.jobs.monitor import JobView, Monitor, fold, is_live, log_tail, view_of
from studio.specs import TrainSpec, parse


def step(number: int, loss: float = 1.0, **more) -> Step:
    return Step(step=number, epoch=0.0, loss=loss, learning_rate=1e-4, **more)


PLAN = Plan(total_steps=10, rows=5, effective_batch_size=2, trainable_parameters=1, total_parameters=2, device="cpu")


@pytest.fixture
def job(studio_home):
    return folders.create("train", parse(TrainSpec, {"data": {"datasets": ["x"]}}), "job")


def begin(job, attempt=1):
    journal = Journal(job.events, attempt)
    journal.append(Started(pid=1, host="h"))
    return journal


def test_steps_that_repeat_after_a_resume_keep_the_newer_value():
    view = JobView("a", "train", "a", 0.0)
    view = fold(view, [step(1, 9.0), step(2, 8.0), step(3, 7.0)])
    assert view.generation == 0
    view = fold(view, [step(2, 5.0)])
    assert [(each.step, each.loss) for each in view.steps] == [(1, 9.0), (2, 5.0)] and view.generation == 1


def test_a_view_is_never_changed_in_place():
    before = fold(JobView("a", "train", "a", 0.0), [step(1)])
    fold(before, [step(2), Sample(step=2, prompt="p", answer="a")])
    assert len(before.steps) == 1 and before.samples == ()


def test_scores_and_samples_of_one_step_are_kept_once():
    twice = [Measured(step=1, scores={"loss": 2.0}), Measured(step=1, scores={"loss": 1.0})]
    view = fold(JobView("a", "train", "a", 0.0), twice)
    assert [each.scores for each in view.measured] == [{"loss": 1.0}]


def test_time_left_comes_from_the_median_step():
    steps = [step(number, seconds=2.0) for number in range(1, 5)] + [step(5, seconds=100.0)]
    view = fold(JobView("a", "train", "a", 0.0, state="running"), [PLAN, *steps])
    assert view.seconds_left == 10.0 and view.total_steps == 10


def test_a_dead_worker_is_interrupted_and_a_living_one_runs(job):
    begin(job)
    with FileLock(job.lock):
        assert view_of(job).state == "running"
        job.ask_to_stop()
        assert view_of(job).state == "stopping"
    past = time.time() - 100
    for path in (job.about,):
        values = path.read_text().replace(str(job.read_about()["created"]), str(past))
        path.write_text(values)
    assert view_of(job).state == "interrupted"


def test_the_last_word_of_an_attempt_is_the_state(job):
    journal = begin(job)
    journal.append(Ended(state="failed", message="no space"))
    view = view_of(job)
    assert view.state == "failed" and view.ended.message == "no space"


def test_a_job_that_was_just_resumed_is_starting_again(job):
    journal = begin(job)
    journal.append(Ended(state="stopped", time=time.time() - 60))
    assert view_of(job).state == "stopped"
    job.started.touch()
    assert view_of(job).state == "starting"


def test_the_monitor_sees_new_jobs_and_new_events(job):
    monitor = Monitor(interval_s=0.02).start()
    assert [view.id for view in monitor.views()] == [job.id]
    journal = begin(job)
    journal.append(step(1, 0.5))
    until = time.time() + 30
    while not monitor.get(job.id).steps and time.time() < until:
        time.sleep(0.02)
    assert monitor.get(job.id).steps[0].loss == 0.5


def test_a_damaged_job_is_shown_and_does_not_hide_the_others(job, studio_home):
    broken = folders.create("train", parse(TrainSpec, {}), "broken")
    broken.about.write_text("{")
    unreadable = folders.create("train", parse(TrainSpec, {}), "odd")
    unreadable.spec.write_text("training: {epochs: -1}")
    views = {view.id: view for view in Monitor().refresh().views()}
    assert set(views) == {job.id, broken.id, unreadable.id}
    assert "damaged" in views[broken.id].notes[0] and "training.epochs" in views[unreadable.id].notes[0]


def test_a_restarted_monitor_tells_the_same(job):
    journal = begin(job)
    for number in range(1, 50):
        journal.append(step(number))
    first, second = Monitor().refresh().get(job.id), Monitor().refresh().get(job.id)
    assert first == second and len(first.steps) == 49


def test_the_log_tail_shows_the_last_state_of_a_progress_bar(job):
    job.log.write_bytes(b"one\n10 %\r50 %\r100 %\nlast\n")
    assert log_tail(job, lines=2) == "100 %\nlast"


def test_f61_a_clock_that_was_set_back_hides_no_resumed_job_and_keeps_no_dead_one_starting(job):
    day = 86_400
    journal = begin(job)
    journal.append(Ended(state="stopped", time=time.time() + day))
    job.about.write_text(job.about.read_text().replace(str(job.read_about()["created"]), str(time.time() + day)))
    monitor = Monitor().refresh()
    assert monitor.get(job.id).state == "stopped"
    begin(job, attempt=2).append(step(7))
    view = monitor.refresh().get(job.id)
    assert view.attempt == 2 and view.step == 7 and view.state == "interrupted"


@pytest.mark.parametrize("text", ["[]", "{}", "1", '{"kind": "cook", "name": "x", "created": 1}'])
def test_any_damage_of_a_jobs_description_is_a_view_that_says_so(job, text):
    broken = folders.create("train", parse(TrainSpec, {}), "broken")
    broken.about.write_text(text)
    monitor = Monitor().refresh()
    assert "damaged" in monitor.get(broken.id).notes[0] and monitor.get(job.id).notes == ()


def test_a_disk_that_is_away_for_a_moment_does_not_end_the_monitor(job, studio_home):
    monitor = Monitor(interval_s=0.01).start()
    jobs, away, in_the_way = (studio_home / name for name in ("jobs", "away", "file"))
    in_the_way.write_text("not a folder")
    jobs.rename(away)
    while in_the_way.exists():
        try:
            in_the_way.rename(jobs)
        except IsADirectoryError:  # the monitor looked in between, and made a new one
            jobs.rmdir()
    time.sleep(0.1)
    jobs.unlink()
    away.rename(jobs)  # onto an empty folder, if the monitor was quicker
    begin(job).append(step(3))
    until = time.time() + 30
    while monitor.get(job.id).step != 3 and time.time() < until:
        time.sleep(0.01)
    monitor.close()
    assert monitor.get(job.id).step == 3


@pytest.fixture
def over(job):
    """A job that ended after 100 steps."""
    journal = begin(job)
    for number in range(1, 101):
        journal.append(step(number))
    journal.append(Ended(state="stopped"))
    journal.close()
    return job


def test_of_an_old_run_only_the_ends_are_read_until_somebody_asks_for_it(over):
    monitor = Monitor().refresh()
    (outline,) = monitor.views()
    assert [each.step for each in outline.steps] == [1, *range(81, 101)]
    assert outline.state == "stopped" and outline.step == 100
    whole = monitor.get(over.id)
    assert whole == view_of(over) and len(whole.steps) == 100
    assert monitor.refresh().get(over.id) == whole and monitor.views() == [whole]


def test_an_old_run_that_goes_on_is_read_whole(over):
    monitor = Monitor().refresh()
    journal = begin(over, attempt=2)
    journal.append(step(50))
    assert [each.step for each in monitor.refresh().views()[0].steps] == list(range(1, 51))
    journal.append(step(51))
    assert monitor.refresh().get(over.id).steps == view_of(over).steps


def test_a_note_that_speaks_of_steps_is_none(job):
    journal = begin(job)
    for _ in range(50):
        journal.append(Note(text='"type":"step"'))
        journal.append(step(1))
    journal.append(Ended(state="stopped"))
    events, _, _ = tail(job.events, last_steps=3)
    assert [type(each).__name__ for each in events].count("Note") == 50
    assert [type(each).__name__ for each in events].count("Step") == 4


def test_whether_a_job_is_alive_is_what_its_view_says(over, monkeypatch):
    assert not is_live(over) and not view_of(over).live
    over.started.touch()
    soon = time.time() + 1  # a file's time is coarser than an event's, and the event was just written
    os.utime(over.started, (soon, soon))
    assert is_live(over) and view_of(over).live
    monkeypatch.setattr(monitor_module, "STARTING_S", 0.0)
    assert not is_live(over) and not view_of(over).live
    with FileLock(over.lock):
        assert is_live(over) and view_of(over).live


def test_a_live_run_can_be_asked_for_what_it_told_since_all_were_looked_at(job):
    journal = begin(job)
    with FileLock(job.lock):
        monitor = Monitor().refresh()
        journal.append(step(1))
        assert monitor.get(job.id).steps == ()
        assert [each.step for each in monitor.now(job.id).steps] == [1]
        journal.append(step(2))
        assert [each.step for each in monitor.refresh().get(job.id).steps] == [1, 2]
    assert monitor.now("nobody") is None
