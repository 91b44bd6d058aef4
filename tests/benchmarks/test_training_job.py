import json
from pathlib import Path

import pytest
import torch

from studio.data import registry
from studio.engine.rows.conversations import prepare
from studio.specs import TrainSpec, parse
from studio.templates import TextTokenizer, resolve
from tests.benchmarks import train_cpu, train_gpu, training_rows
from tests.benchmarks.clock import Clock, peak_rss_mib
from tests.benchmarks.train_with_studio import spec_of, tokens_by_step
from tests.benchmarks.training_entries import contenders, pairs
from tests.benchmarks.training_job import Job, lengths, warm_up_steps

CUTOFF = 96


@pytest.fixture
def job(tiny, tmp_path):
    rows = training_rows.mixed_rows(11, CUTOFF)
    return Job(str(tiny()), **training_rows.write(rows, tiny(), CUTOFF, tmp_path), cutoff=CUTOFF)


def test_the_rows_are_tokenised_as_a_run_of_the_studio_trains_on_them(job, studio_home, tmp_path):
    registry.add(job.rows, "bench")
    spec = parse(TrainSpec, spec_of(job, "bench"))
    tokenizer = TextTokenizer.from_folder(Path(job.model))
    rows = prepare(spec, tokenizer, resolve("auto", tokenizer), lambda event: None, place=tmp_path / "rows")
    assert [dict(row) for row in rows.train] == job.tokenised()
    assert any(len(row["input_ids"]) == CUTOFF for row in job.tokenised())  # some are cut


def test_the_tokens_of_a_step_are_those_of_its_rows(job):
    steps, rows = tokens_by_step(job), lengths(job)
    assert len(steps) == 2
    assert steps[1] == tuple(sum(column) for column in zip(*rows[8:], strict=True))


def test_the_clock_counts_no_padding_and_no_first_token():
    clock = Clock()
    labels = torch.tensor([[5, 6, 7], [-100, 8, -100]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    clock.batch({"input_ids": labels.abs(), "labels": labels, "attention_mask": mask})
    clock.batch({"input_ids": torch.ones(1, 4), "labels": torch.tensor([[-100, 1, -100, 2]])})  # without padding
    clock.step(1.5)
    clock.step(1.0)
    assert clock.real == [5 + 4, 0]
    assert clock.supervised == [3 + 2, 0]


def test_the_peak_of_a_process_that_is_gone_is_unknown():
    assert peak_rss_mib(2**22 + 1) is None


@pytest.mark.parametrize(("steps", "left_out"), [(1, 1), (2, 1), (3, 2), (9, 2)])
def test_a_warm_up_leaves_a_step_where_there_are_two(steps, left_out):
    assert warm_up_steps(steps) == left_out


@pytest.mark.parametrize("entries", [train_cpu.ENTRIES, train_gpu.chosen(list(train_gpu.ENTRIES), ["none", "nf4"])])
def test_each_contender_gets_a_job_that_its_name_stands_for(job, entries, tmp_path):
    made = contenders(entries, job, tmp_path, pythons={"llamafactory": "other"}, timeout_s=1)
    assert [each.name for each in made] == ["gemm", *entries]
    for contender in made[1:]:
        python, _, module, path = contender.command
        asked = json.loads((tmp_path / path).read_text())
        assert (asked["quantization"] == "nf4") == contender.name.endswith("-nf4")
        assert (python == "other") == ("llamafactory" in module)


def test_the_studio_is_compared_with_bases_like_its_own():
    assert pairs(["studio", "trl", "trl-nf4", "studio-nf4"]) == [
        ("studio", "trl"),
        ("studio-nf4", "trl-nf4"),
        ("studio-nf4", "studio"),
    ]


def test_mixed_rows_are_the_same_each_time_and_of_many_lengths():
    rows = training_rows.mixed_rows(40, CUTOFF)
    assert rows == training_rows.mixed_rows(40, CUTOFF)
    sizes = sorted(len(row["output"].split()) for row in rows)
    assert sizes[0] * 3 < sizes[-1]
