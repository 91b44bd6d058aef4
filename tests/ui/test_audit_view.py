from dataclasses import replace

import pytest

from studio.data.audit import Report
from studio.data.derive import REMEDIES
from studio.ui import audit_view, audits, plots
from studio.ui.texts import table
from tests.ui.markup import Tags
from tests.ui.recorded import HOSTILE

SPREAD = {"sum": 60_000, "mean": 60.0, "min": 3, "p50": 55, "p90": 90, "p95": 99, "p99": 140, "max": 700}
TOKENS = {
    "rows": 990, "left_out": 0, "model": "m", "template": "chatml", "max_length": 128, "total": SPREAD,
    "prompt": SPREAD, "response": SPREAD, "supervised": 30_000, "kept": 55_000, "supervised_share": 0.5454,
    "steps_per_epoch": 124,
    "histogram": {"edges": [0, 50, 100, 150], "total": [400, 500, 90], "prompt": [900, 80, 10],
                  "response": [700, 200, 90]},
}  # fmt: skip


def report(**changes):
    figures = {
        "dataset": "mine", "sha256": "0" * 64, "format": "alpaca", "rows": 1000, "valid": 990, "faults_total": 10,
        "faults": [], "warnings": [], "duplicates": 12, "near_duplicates": 3, "near_rows": 978, "conflicts": 0,
        "leaked": None, "special_tokens": 1, "truncated": 9, "unsupervised": 2, "unwritable": 0, "classes": None,
        "tokens": TOKENS, "settings": {"effective_batch_size": 8, "max_length": 128}, "seconds": 1.5,
        "rows_per_s": 666.0,
    }  # fmt: skip
    return Report(**figures | changes)


def figures(language="en", taken=(), **changes):
    return audit_view.figures(report(**changes), "today", taken, language)


def test_every_figure_has_its_number_its_share_and_its_unit():
    text = Tags(figures()).text
    assert "990 of 1,000 rows can be learned from." in text
    assert "12 (1.2%)" in text
    assert "60,000 in all, 55,000 after the cutoff" in text
    assert "54.5% of the tokens (30,000)" in text and "124 (batches of 8)" in text


def test_a_remedy_is_offered_where_rows_are_found_with_a_name_that_is_free():
    markup = figures(taken=["mine-unique"])
    assert "data-remedy='drop_duplicates' data-name='mine-unique-2'" in markup
    assert "data-remedy='drop_conflicts'" not in markup and "data-show='conflict'" not in markup
    assert "data-show='truncated'" in markup and "drop_truncated" not in markup


def test_what_was_not_looked_for_says_what_it_needs():
    text = Tags(figures(tokens=None, truncated=None, unsupervised=None, unwritable=None, special_tokens=None)).text
    assert text.count("needs a model") == 4 and "choose a dataset to compare with" in text


def test_leaks_between_the_sides_of_a_split_have_no_remedy():
    assert "drop_leaks" not in figures(leaked=4)
    assert "drop_leaks" in figures(leaked=4, settings={"against": "exam"})


def test_classes_of_one_size_need_no_balancing():
    assert "data-remedy='balance'" in figures(classes={"ham": 4827, "spam": 747})
    assert "data-remedy='balance'" not in figures(classes={"ham": 747, "spam": 747})


def test_every_remedy_that_is_offered_exists_and_has_words():
    offered = {line.remedy for line in audit_view.lines(report(settings={"against": "x"})) if line.remedy}
    assert offered | {"balance"} == set(audit_view.SUFFIXES) <= set(REMEDIES)
    assert {f"audit.remedy.{name}" for name in REMEDIES} <= set(table("en"))


def test_every_finding_has_words():
    kinds = audits.reports.KINDS
    assert {f"audit.kind.{kind}" for kind in kinds} <= set(table("en"))
    assert {f"audit.mark.{kind}" for kind in kinds if kind != audits.NOT_MARKED} <= set(table("en"))


def test_markup_in_a_report_stays_text():
    hostile = report(warnings=[HOSTILE], tokens=TOKENS | {"model": HOSTILE}, settings={"against": HOSTILE}, leaked=1)
    parsed = Tags(audit_view.figures(replace(hostile, dataset=HOSTILE), HOSTILE, [], "en"))
    assert "img" not in parsed.tags and parsed.text.count("<img src=x") >= 4


@pytest.mark.parametrize("cutoff", [128, 4096])
def test_the_lengths_are_bars_with_the_cutoff_where_it_is_in_sight(cutoff):
    figure = plots.token_lengths(TOKENS | {"max_length": cutoff})
    assert [trace.type for trace in figure.data] == ["bar", "scatter", "scatter"]
    assert list(figure.data[0].y) == [400, 500, 90] and figure.data[0].customdata[2] == "≥ 100"
    assert len(figure.layout.shapes) == (cutoff == 128)


def test_many_classes_end_in_one_bar_for_the_rest_and_labels_are_no_markup():
    sizes = {f"<b>{n}</b>": 100 - n for n in range(77)}
    (bars,) = plots.class_sizes(sizes).data
    assert len(bars.x) == plots.MOST_CLASSES + 1 and sum(bars.x) == sum(sizes.values())
    assert bars.customdata[0] == "&lt;b&gt;0&lt;/b&gt;" and bars.customdata[-1] == "57 others"
