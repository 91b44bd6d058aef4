"""What earlier audits and runs on this machine tell of a run before it starts."""

import json
from dataclasses import replace

import numpy as np
import pytest

from studio import hardware
from studio.data import registry
from studio.data.audit.report import Report
from studio.engine.fit import Machine
from studio.events import Plan, Step
from studio.jobs import needs as module
from studio.jobs.monitor import JobView, Monitor
from studio.jobs.needs import needs, pace, rows
from studio.specs import TrainSpec, parse
from tests.ui.audited import audited

MODEL = "smollm2-135m-instruct"


def spec(**data):
    return parse(TrainSpec, {"data": {"datasets": ["sums"], "max_length": 50, **data}})


@pytest.fixture
def sums(studio_home, tmp_path):
    path = tmp_path / "sums.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": str(n), "completion": str(n + 1)}) for n in range(10)))
    return registry.add(path, "sums")


def with_tokens(folder, tokens, supervised, model=MODEL):
    """Make an audit as if it had counted tokens."""
    kept = np.array([np.arange(len(tokens)), tokens, supervised, tokens], dtype=np.int32).T
    np.save(folder.findings / "lengths.npy", kept)
    report = replace(Report.load(folder.report), tokens={"model": model})
    report.save(folder.report)


def counted(wanted, dataset):
    return rows(wanted, [dataset], Monitor().refresh())


def test_rows_that_were_counted_with_this_model_are_known(sums):
    folder = audited("sums")
    assert counted(spec(), sums) is None
    with_tokens(folder, [10, 20, 80, 30], [5, 0, 60, 7])
    found = counted(spec(), sums)
    assert found.tokens.tolist() == [10, 50, 30]  # the second has nothing to learn, the third is cut
    assert found.supervised.tolist() == [5, 50, 7]
    assert counted(spec(truncation="drop_row"), sums).tokens.tolist() == [10, 30]
    assert len(counted(spec(max_samples=2), sums).tokens) == 2
    assert len(counted(spec(validation_share=0.3), sums).tokens) == 2


def test_tokens_of_another_model_tell_nothing(sums):
    with_tokens(audited("sums"), [10] * 10, [5] * 10, model="owner/other")
    assert counted(spec(), sums) is None


def test_an_older_audit_tells_them_where_the_newest_counted_none(sums):
    with_tokens(audited("sums"), [10] * 10, [5] * 10)
    audited("sums")
    assert counted(spec(), sums).total == 100


def test_several_datasets_are_known_only_together(sums, tmp_path):
    path = tmp_path / "more.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n')
    more = registry.add(path, "more")
    with_tokens(audited("sums"), [10] * 10, [5] * 10)
    monitor = Monitor().refresh()
    assert rows(spec(), [sums, more], monitor) is None
    with_tokens(audited("more"), [7], [3])
    assert rows(spec(), [sums, more], monitor.refresh()).total == 107


def run(wanted, tokens_per_s, state="finished", device=None):
    plan = Plan(
        total_steps=1, rows=1, effective_batch_size=1, trainable_parameters=1, total_parameters=1,
        device=device or str(hardware.detect()),
    )  # fmt: skip
    step = Step(step=1, epoch=1, loss=1, learning_rate=1, tokens_per_s=tokens_per_s)
    values = wanted.model_dump(mode="json")
    return JobView("run", "train", "run", 0.0, state=state, spec=values, plan=plan, steps=(step,))


def test_the_pace_is_that_of_the_newest_finished_runs_like_it():
    wanted = spec()
    other = parse(TrainSpec, {"quantization": {"kind": "none"}})
    runs = [
        run(wanted, 9.0, state="running"), run(other, 9.0), run(wanted, 9.0, device="elsewhere"),
        run(wanted, 100.0), run(wanted, 300.0), run(wanted, 200.0), run(wanted, 1000.0),
    ]  # fmt: skip
    assert pace(wanted, runs) == 200
    assert pace(wanted, runs[:3]) is None


def test_needs_are_estimated_with_what_is_known(sums, monkeypatch):
    monkeypatch.setattr(Machine, "here", classmethod(lambda cls: cls(hardware.detect(), 64 * 1024**3)))
    monkeypatch.setattr(module, "pace", lambda spec, runs: 50.0)
    unknown = needs(spec())
    assert (unknown.rows_known, unknown.seconds, unknown.batch.tokens) == (False, None, 400)
    assert unknown.disk.rows == 8 * 10 * 50
    with_tokens(audited("sums"), [10] * 10, [5] * 10)
    known = needs(spec())
    assert (known.rows_known, known.batch.tokens, known.tokens, known.seconds) == (True, 80, 300, 6)


def test_a_dataset_that_is_not_there_is_no_reason_not_to_estimate(studio_home):
    assert needs(spec()).disk.rows == 0
