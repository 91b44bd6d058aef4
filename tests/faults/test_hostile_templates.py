"""Templates as hostile programs: no way out of the sandbox, no end to time or memory, nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from studio.data.example import Message
from studio.errors import TemplateError
from studio.sandbox import jinja
from studio.templates import confined, load, rendering
from studio.templates.confined import Confined, Unfinished
from studio.templates.rendering import Template, render, variables

TALK = (Message("user", "Hello"), Message("assistant", "Hi"))
HARMLESS = "{% for message in messages %}{{ message.content }};{% endfor %}"

LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"

SLOW = {
    "loops in loops": LOOP,
    "a macro that calls itself twice": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}"
    ),
    "numbers that grow": (
        "{% set n = namespace(x=3) %}{% for i in range(64) %}{% set n.x = n.x * n.x %}{% endfor %}{{ n.x % 7 }}"
    ),
    "a sum of sums": "{% for i in range(99999) %}{{ range(99999) | sum }}{% endfor %}",
}

GREEDY = {
    "centred": "{{ 'a' | center(2000000000) }}",
    "formatted": "{{ '{:>2000000000}'.format('a') }}",
    "formatted by a filter": "{{ '%s%s' | format('a' | center(900000000), 'a' | center(900000000)) }}",
    "left-justified": "{{ 'a'.ljust(2000000000) }}",
    "doubled again and again": (
        "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}"
    ),
    "added again and again": (
        "{% set n = namespace(x=[1]) %}{% for i in range(40) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x | length }}"
    ),
    "joined": (
        "{% set n = namespace(x='a') %}{% for i in range(12) %}"
        "{% set n.x = [n.x, n.x, n.x, n.x, n.x, n.x, n.x, n.x] | join %}{% endfor %}"
    ),
    "replaced": (
        "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(20) %}"
        "{% set n.x = n.x | replace('a', 'aaaaaaaa') %}{% endfor %}"
    ),
    "indented": "{{ '\n'.join(messages[0].content | center(3000) | list) | indent(5000000, true) }}",
    "as JSON": "{{ messages | tojson(indent=900000000) }}",
    "lists of lists": (
        "{% set n = namespace(x=[]) %}{% for i in range(99999) %}{% set n.x = [n.x, range(99999) | list] %}{% endfor %}"
    ),
}

ENDLESS_TEXT = {
    "written in loops": "{% for i in range(99999) %}{% for j in range(99999) %}xxxxxxxx{% endfor %}{% endfor %}",
    "one long text": "{% for i in range(99) %}{{ 'a' | center(1000000) }}{% endfor %}",
}

DEEP = {
    "a macro that calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "brackets": "{{ " + "[" * 50_000 + "]" * 50_000 + " }}",
    "parentheses": "{{ " + "(" * 3_000 + "1" + ")" * 3_000 + " }}",
    "not not not": "{{ " + "not " * 50_000 + "1 }}",
    "a long sum": "{{ 1" + " + 1" * 50_000 + " }}",
    "loops in loops in loops": "{% for i in [1] %}" * 60 + "{% endfor %}" * 60,
    "conditions in conditions": "{% if 1 %}" * 5_000 + "{% endif %}" * 5_000,
    "recursive loops": "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
}

WAYS_OUT = [
    "{{ ''.__class__.__mro__ }}",
    "{{ messages.__class__ }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update(role='x') }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__ }}",
    "{% set n = namespace() %}{% set n.__class__ = 1 %}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ namespace(x=1).__class__ }}",
    "{{ dict.mro() }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{{ lipsum.__globals__.os }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ self.__init__ }}",
    "{{ loop.__class__ }}",
    "{{ messages | map(attribute='__class__') | first }}",
    "{{ messages | groupby('__class__') | first }}",
    "{{ '' | attr('__class__') }}",
    "{{ '{0.__class__}'.format('x') }}",
    "{{ '{0.__class__.__mro__}'.format('x') }}",
    "{{ '{a.__class__}'.format_map({'a': 'x'}) }}",
    "{{ '{0[__class__]}'.format('x') }}",
    "{{ ''['__class__'] }}",
    "{% macro m() %}{% endmacro %}{{ m.__globals__ }}{{ m._func }}",
    "{{ caller.__globals__ }}",
]


@pytest.fixture(scope="module")
def strict():
    """Processes with less time and memory, so that the tests are quick."""
    processes = Confined(limit_s=1.0, memory_mib=256)
    yield processes
    processes.close()


@pytest.fixture(autouse=True)
def confine(strict, monkeypatch):
    monkeypatch.setattr(confined, "shared", strict)


def template(text):
    return Template("mine", text, origin="own")


def cases(texts):
    return pytest.mark.parametrize("text", texts.values(), ids=texts.keys())


def assert_the_next_one_works(processes):
    assert render(template(HARMLESS), TALK) == "Hello;Hi;"
    assert len(processes.pids()) == 1


@pytest.mark.parametrize("text", WAYS_OUT)
def test_f28_a_way_out_of_the_sandbox_is_refused_or_leads_nowhere(text):
    try:
        written = render(template(text), TALK)
    except TemplateError as error:
        assert "'mine'" in str(error)
    else:
        assert not any(word in written for word in ("class", "object", "module", "function", "0x"))


@cases(SLOW)
def test_f29_what_does_not_end_is_ended_and_the_next_template_is_written(text, strict):
    start = time.perf_counter()
    with pytest.raises(Unfinished, match=r"Template 'mine' did not finish within 1 s: .* choose another template"):
        render(template(text), TALK)
    assert time.perf_counter() - start < 3
    assert_the_next_one_works(strict)


@cases(GREEDY)
def test_f29_what_fills_the_memory_is_ended_and_the_next_template_is_written(text, strict):
    with pytest.raises(Unfinished, match=r"needs more than 256 MiB of memory .*choose another template|did not finish"):
        render(template(text), TALK)
    assert_the_next_one_works(strict)


@cases(ENDLESS_TEXT)
def test_f29_what_writes_without_end_is_stopped(text, strict):
    with pytest.raises(TemplateError, match=r"'mine'(: it wrote more than 16,777,216 characters| did not finish)"):
        render(template(text), TALK)
    assert_the_next_one_works(strict)


@cases(DEEP)
def test_f29_what_nests_without_end_ends_in_a_sentence(text, strict):
    try:
        render(template(text), TALK)
    except TemplateError as error:
        assert "'mine'" in str(error)
    assert_the_next_one_works(strict)


@cases(GREEDY | {"powers": "{{ 9 ** 9 ** 9 }}", "repeated": "{{ 'a' * 10000000000 }}", "%": "{{ '%2000000000d' % 1 }}"})
def test_f29_a_constant_that_is_computed_while_it_is_compiled_is_bound_by_the_same_limits(text, strict):
    try:
        variables(template("{% if false %}" + text + "{% endif %}"))
    except TemplateError as error:
        assert "'mine'" in str(error)
    assert_the_next_one_works(strict)


@pytest.mark.parametrize("text", ["{{ 9 ** 9 ** 9 ** 9 }}", "{{ 'x' * 10000000000 }}", "{{ '%2000000000d' % 1 }}"])
def test_f29_plain_bombs_are_refused_by_the_sandbox_itself(text):
    assert jinja.answer({"text": text, "values": {}, "most": 10})["fault"] == "wrong"


@pytest.mark.parametrize("tag", ["include 'x'", "import 'x' as y", "from 'x' import y", "extends 'x'"])
def test_a_template_that_needs_another_file_is_told_where(tag):
    with pytest.raises(TemplateError, match=r"line 2, column \d+: '(include|import|extends)' needs another file"):
        render(template(f"Hello\n{{% {tag} %}}"), TALK)


def test_ordinary_repetition_and_formatting_are_allowed():
    text = "{{ '-' * 5 }}{{ 2 * 3 }}{{ '%05d' % 7 }}{{ 7 % 4 }}{{ '{:>4}'.format('a') }}{{ '50%' ~ '' }}"
    assert render(template(text), TALK) == "-----6000073   a50%"


def test_a_child_that_somebody_ends_is_replaced_without_a_word(strict):
    render(template(HARMLESS), TALK)
    (pid,) = strict.pids()
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.05)
    assert_the_next_one_works(strict)
    assert strict.pids() != [pid]


def test_a_child_that_breaks_at_its_work_is_told(strict):
    """As one does that the system ends because all memory is gone."""
    render(template(HARMLESS), TALK)
    (pid,) = strict.pids()
    threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(Unfinished, match="ended the process that wrote it"):
        render(template(LOOP), TALK)
    assert_the_next_one_works(strict)


def test_a_child_finds_no_secrets_in_its_environment(strict, monkeypatch):
    strict.close()
    monkeypatch.setenv("HF_TOKEN", "secret")
    render(template(HARMLESS), TALK)
    assert "secret" not in Path(f"/proc/{strict.pids()[0]}/environ").read_text()
    strict.close()


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="needs /proc")
def test_a_child_can_write_no_file_and_start_no_process(strict):
    render(template(HARMLESS), TALK)
    told = Path(f"/proc/{strict.pids()[0]}/limits").read_text().splitlines()
    limits = {line[:26].strip(): line[26:].split()[0] for line in told}
    assert limits["Max file size"] == limits["Max core file size"] == limits["Max processes"] == "0"
    assert limits["Max address space"] == str(256 * 1024**2)
    assert int(limits["Max open files"]) <= 16


def test_others_are_served_while_one_template_does_not_end(monkeypatch):
    processes = Confined(limit_s=3.0)
    monkeypatch.setattr(confined, "shared", processes)

    def ask():
        with pytest.raises(Unfinished):
            render(template(LOOP), TALK)

    slow = threading.Thread(target=ask)
    slow.start()
    time.sleep(0.2)
    start = time.perf_counter()
    assert render(template(HARMLESS), TALK) == "Hello;Hi;"
    assert slow.is_alive()
    assert time.perf_counter() - start < 2.5
    slow.join()
    processes.close()


def test_many_askers_at_once_each_get_their_own_answer(strict):
    found = {}

    def ask(number):
        text = f"{number}:{HARMLESS}"
        found[number] = [render(template(text), (Message("user", str(number)),)) for _ in range(20)]

    askers = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert found == {number: [f"{number}:{number};"] * 20 for number in range(8)}
    assert len(strict.pids()) <= confined.CHILDREN


def test_shipped_templates_need_no_process(strict):
    strict.close()
    render(load("chatml"), TALK)
    assert strict.pids() == []


def test_a_conversation_of_half_characters_and_large_numbers_comes_through():
    said = "\ud800 \x00 😀 \u2028"
    assert render(template("{{ messages[0].content }}"), (Message("user", said),)) == said


OWNER = """
import os, sys, threading, time
from studio.data.example import Message
from studio.templates import confined
from studio.templates.rendering import Template, render
confined.shared = confined.Confined(limit_s=2.0)
render(Template("mine", "x", origin="own"), [Message("user", "a")])
print(confined.shared.pids()[0], flush=True)
if sys.argv[1] == "busy":
    threading.Thread(target=lambda: render(Template("mine", sys.argv[2], origin="own"), [Message("user", "a")])).start()
    print("busy", flush=True)
    time.sleep(30)
if sys.argv[1] == "idle":
    time.sleep(30)
"""


@pytest.mark.parametrize(("state", "within_s"), [("done", 1), ("idle", 1), ("busy", 6)])
def test_no_process_is_left_behind_when_the_studio_ends_or_is_killed(state, within_s):
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OWNER), state, LOOP], stdout=subprocess.PIPE, text=True
    )
    pid = int(owner.stdout.readline())
    if state == "busy":
        owner.stdout.readline()
        time.sleep(0.2)
    if state != "done":
        owner.kill()
    owner.wait(timeout=10)
    owner.stdout.close()
    end = time.monotonic() + within_s
    while _runs(pid) and time.monotonic() < end:
        time.sleep(0.02)
    assert not _runs(pid)


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_studio_that_was_forked_does_not_share_its_parents_pipes(strict):
    render(template(HARMLESS), TALK)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = render(template(HARMLESS), TALK)
        os.write(writing, json.dumps([said, confined.shared is strict]).encode())
        confined.shared.close()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        assert json.load(file) == ["Hello;Hi;", False]
    os.waitpid(pid, 0)
    assert_the_next_one_works(strict)


def test_the_limit_of_written_characters_goes_with_the_request(monkeypatch):
    monkeypatch.setattr(rendering, "MAX_CHARACTERS", 100)
    with pytest.raises(TemplateError, match="it wrote more than 100 characters"):
        render(template("{% for i in range(101) %}x{% endfor %}"), TALK)
