"""A worker as a process of this machine: detached, and reaped."""

import time

import psutil

from studio.jobs import folder as folders
from studio.jobs.executors import local
from studio.jobs.monitor import view_of
from studio.specs import TrainSpec, parse


def test_an_ended_worker_leaves_no_zombie(studio_home):
    folder = folders.create("train", parse(TrainSpec, {}), "damaged")
    folder.about.write_text("{}")  # the worker ends as soon as it has read this
    before = set(psutil.Process().children())
    local.start(folder)
    until = time.monotonic() + 60
    while set(psutil.Process().children()) - before:
        assert time.monotonic() < until, "the worker is still there, or is a zombie"
        time.sleep(0.05)
    view = view_of(folder)
    assert view.state == "failed" and "damaged" in view.ended.message
