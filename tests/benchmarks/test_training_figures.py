import json

import pytest

from tests.benchmarks.alternating import Taken
from tests.benchmarks.training_figures import GEMM, rated, summed_up, table
from tests.benchmarks.training_job import Job


def told(step_s, losses=(3.0, 2.0, 1.0), **further):
    """A run whose first step took long."""
    reports = [100.0 + step_s * step for step in range(len(losses))]
    steps = len(losses)
    figures = {"reports": reports, "losses": list(losses), "real": [50] * steps, "supervised": [20] * steps}
    figures["cpu_at_report_s"] = [2 * report for report in reports]  # two threads at work
    return figures | {"first_step_s": 100.0, "peak_rss_mib": 900.0, "cpu_s": 7.0} | further


@pytest.fixture
def job(tmp_path):
    """One row of 100 tokens, 40 of them supervised, for a model of one small layer."""
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(
        json.dumps({"hidden_size": 1, "intermediate_size": 1, "vocab_size": 9, **heads})
    )
    rows = tmp_path / "tokens.json"
    rows.write_text(json.dumps([{"input_ids": [1] * 100, "labels": [-100] * 60 + [1] * 40}]))
    return Job(str(tmp_path), rows="", tokens=str(rows), rank=1)


@pytest.fixture
def summary(job):
    def made(runs):
        taken = Taken({GEMM: [{"flops_per_s": 40_000.0}], **runs}, {})
        return summed_up(taken, job, [("studio", "trl"), ("studio", "absent")])

    return made


def test_a_rate_leaves_the_first_two_steps_out():
    run = rated(told(2.0, losses=(4.0, 3.0, 2.0, 1.0)))
    assert run["warm_up_steps"] == 2
    assert run["real_tokens_per_s"] == pytest.approx(100 / 4)
    assert run["supervised_tokens_per_s"] == pytest.approx(40 / 4)
    assert run["real_tokens_per_cpu_s"] == pytest.approx(100 / 8)
    assert (run["mean_loss"], run["final_loss"]) == (2.5, 1.0)


def test_a_single_step_has_no_rate(summary):
    assert rated(told(1.0, losses=(2.0,)))["real_tokens_per_s"] is None
    assert "no rate" in table(summary({"studio": [told(1.0, losses=(2.0,))]}))


def test_utilisation_is_the_arithmetic_over_the_measured_rate(summary):
    found = summary({"studio": [told(1.0)]})
    # seven weights and their adapters of rank 1 with two each; a head of nine; a square of 100 x 100
    assert found["floor"]["flops"] == {"linear": 2800, "adapter": 8400, "head": 1440, "attention": 60_000}
    assert found["floor"]["flops_per_token"] == pytest.approx(726.4)
    assert found["floor"]["tokens_per_s"] == pytest.approx(40_000 / 726.4)
    assert found["contenders"]["studio"]["medians"]["utilisation"]["median"] == pytest.approx(50 * 726.4 / 40_000)


def test_ratios_and_losses_are_compared_in_pairs(summary):
    found = summary({"studio": [told(1.0)], "trl": [told(4.0, losses=(3.0, 2.5, 1.0))]})
    assert found["ratios"] == {"studio/trl": 4.0}
    apart = found["losses"]["studio/trl"]
    assert apart["largest_of_a_step"] == pytest.approx(-0.5)
    assert apart["mean"] == pytest.approx(-0.5 / 3)


def test_packed_rows_make_fewer_steps_which_are_not_compared_one_by_one(summary):
    found = summary({"studio": [told(1.0)], "trl": [told(1.0, losses=(3.0, 2.0))]})
    assert found["losses"]["studio/trl"]["largest_of_a_step"] is None


def test_the_table_shows_the_spread_and_a_ratio(summary):
    shown = table(summary({"studio": [told(1.0), told(2.0), told(4.0)], "trl": [told(4.0)]}))
    assert "25.0 tokens/s (12.5 to 50.0)" in shown
    assert "studio/trl: 2.00" in shown
