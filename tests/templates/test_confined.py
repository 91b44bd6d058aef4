"""Processes for strangers' templates: started when needed, kept, replaced, ended. What is hostile: tests/faults."""

import shutil
import subprocess
import sys
import threading
import time

import pytest

from studio.errors import StudioError
from studio.templates import confined
from studio.templates.confined import Confined, Unfinished

HELLO = {"text": "Hello {{ name }}", "values": {"name": "you"}, "most": 100}
LOOP = {
    "text": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "values": {},
    "most": 100,
}


@pytest.fixture
def processes():
    made = Confined(limit_s=1.0)
    yield made
    made.close()


def test_no_process_is_started_before_it_is_needed_and_one_is_kept(processes):
    assert processes.pids() == []
    assert processes.ask("mine", HELLO) == {"text": "Hello you"}
    kept = processes.pids()
    assert len(kept) == 1
    assert processes.ask("mine", HELLO | {"values": {"name": "me"}}) == {"text": "Hello me"}
    assert processes.pids() == kept


def test_the_text_of_a_template_is_sent_anew_when_it_changes(processes):
    other = HELLO | {"text": "Bye {{ name }}"}
    answers = [processes.ask("mine", each)["text"] for each in (HELLO, HELLO, other, other, HELLO)]
    assert answers == ["Hello you", "Hello you", "Bye you", "Bye you", "Hello you"]


def test_a_template_is_only_compiled_where_there_is_nothing_to_write(processes):
    assert processes.ask("mine", {"text": "{{ a }}{{ b }}{% set b = 1 %}"}) == {"names": ["a", "b"]}


def test_the_name_and_the_limit_are_in_the_sentence(processes):
    with pytest.raises(Unfinished, match=r"Template 'theirs' did not finish within 1 s"):
        processes.ask("theirs", LOOP)


def test_no_more_than_so_many_processes_run_at_once():
    processes = Confined(limit_s=0.5, children=1)
    told = []

    def ask(request):
        try:
            told.append(processes.ask("mine", request))
        except Unfinished:
            told.append("ended")

    first = threading.Thread(target=ask, args=(LOOP,))
    first.start()
    time.sleep(0.1)
    ask(HELLO)
    first.join()
    assert told == ["ended", {"text": "Hello you"}]
    processes.close()


def test_an_answer_that_nobody_waited_for_is_not_taken_for_that_of_another(processes, monkeypatch):
    processes.ask("mine", HELLO)
    (pid,) = processes.pids()

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(confined._Child, "_next", interrupted)
        with pytest.raises(KeyboardInterrupt):
            processes.ask("mine", HELLO)
    assert processes.pids() == []
    assert processes.ask("mine", HELLO | {"values": {"name": "me"}}) == {"text": "Hello me"}
    assert processes.pids() != [pid]


def test_a_process_that_cannot_be_started_is_told(processes, monkeypatch, tmp_path):
    monkeypatch.setattr(confined.sys, "executable", str(tmp_path / "nothing"))
    with pytest.raises(StudioError, match="cannot be started: No such file"):
        processes.ask("mine", HELLO)


@pytest.mark.skipif(not shutil.which("false"), reason="needs a program that does nothing")
def test_a_process_that_ends_at_once_is_told(processes, monkeypatch):
    monkeypatch.setattr(confined.sys, "executable", shutil.which("false"))
    with pytest.raises(StudioError, match="cannot be started: it does not answer"):
        processes.ask("mine", HELLO)


def test_a_child_imports_nothing_but_jinja():
    code = (
        "import sys, studio.sandbox.child; "
        "print([m for m in sys.modules if m.split('.')[0] in ('pydantic', 'yaml', 'tokenizers', 'torch', 'numpy')], "
        "[m for m in sys.modules if m.startswith('studio.') and not m.startswith('studio.sandbox')])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "[] []"
