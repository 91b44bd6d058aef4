import json
import os
import sys
import time

import psutil
import pytest

from tests.benchmarks.alternating import Contender, RunFailed, ratios, run, spread, take_turns


def python(name, code, **options):
    return Contender(name, (sys.executable, "-c", code), **options)


def works(pid):
    """Whether a process still does anything; who has ended may wait for somebody to ask for its status."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_contenders_take_turns(tmp_path):
    order = tmp_path / "order"
    code = "import sys; open({!r}, 'a').write({!r}); print('noise'); print('{{\"figure\": 1}}')"
    both = [python(name, code.format(str(order), name)) for name in "ab"]
    taken = take_turns(both, 2)
    assert order.read_text() == "abab"
    assert taken.runs == {"a": [{"figure": 1}] * 2, "b": [{"figure": 1}] * 2}


def test_who_fails_is_told_with_its_last_words_and_left_out_of_later_rounds():
    told = []
    bad = python("bad", "raise SystemExit('no such kernel')")
    taken = take_turns([bad, python("good", "print('{}')")], 2, told=lambda name, figures: told.append(name))
    assert "no such kernel" in taken.failed["bad"]
    assert told == ["bad", "good", "good"]
    assert list(taken.runs) == ["good"]


def test_a_process_without_figures_has_failed():
    with pytest.raises(RunFailed, match="no figures"):
        run(python("silent", "print('done')"), timeout_s=30)


def test_a_run_that_takes_too_long_is_ended_with_what_it_started_in_another_session(tmp_path):
    place = tmp_path / "pid"
    started = "import time, os; open(os.environ['PLACE'], 'w').write(str(os.getpid())); time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {started!r}], start_new_session=True)"
    with pytest.raises(RunFailed, match="was ended after"):
        run(python("slow", code, environment={"PLACE": str(place)}), timeout_s=2)
    assert not works(int(place.read_text()))


def test_nothing_starts_when_the_time_is_up():
    taken = take_turns([python("late", "print('{}')")], 1, until=time.monotonic() - 1)
    assert "time" in taken.failed["late"]


def test_a_run_has_a_home_of_its_own():
    code = "import os, json; print(json.dumps({'home': os.environ['STUDIO_HOME']}))"
    homes = {run(python("one", code), timeout_s=30)["home"] for _ in range(2)}
    assert len(homes) == 2
    assert os.environ.get("STUDIO_HOME") not in homes


def test_the_spread_leaves_out_runs_that_lack_the_figure():
    assert spread([3.0, None, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}
    assert spread([None]) is None


def test_ratios_are_of_pairs_that_both_ran():
    medians = {"ours": 300.0, "theirs": 100.0}
    found = ratios(medians, [("ours", "theirs"), ("ours", "absent")])
    assert json.loads(json.dumps(found)) == {"ours/theirs": 3.0}
