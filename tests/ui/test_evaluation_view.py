import json
from dataclasses import replace

import pytest

from studio.events import Measured
from studio.jobs.monitor import JobView
from studio.ui import evaluation_view
from studio.ui.plots import paired_losses
from tests.ui.recorded import HOSTILE

VIEW = JobView("e", "evaluate", "e", 0.0)


def measured(base, adapter):
    return replace(VIEW, measured=(Measured(subject="base", scores=base), Measured(subject="adapter", scores=adapter)))


def row(number, base=2.0, adapter=1.0, answer="x"):
    subjects = {"base": {"loss": base, "answer": answer}, "adapter": {"loss": adapter, "answer": None}}
    return {"row": number, "prompt": "p", "reference": "r"} | subjects


def test_a_lower_loss_is_better_and_a_lower_accuracy_is_worse():
    base = {"loss": 3.0, "token_accuracy": 0.5, "rows": 7.0}
    adapter = {"loss": 1.5, "token_accuracy": 0.25, "rows": 7.0}
    markup = evaluation_view.scores(measured(base, adapter), "en")
    assert "Measured on 7 rows" in markup
    assert "<td class='better'>−1.5000 " in markup
    assert "<td class='worse'>−25.0 points " in markup


def test_equal_scores_are_neither_better_nor_worse():
    markup = evaluation_view.scores(measured({"loss": 1.0}, {"loss": 1.0}), "en")
    assert "<td class='same'>±0.0000 " in markup


def test_scores_wait_until_both_were_measured():
    assert evaluation_view.scores(None, "en") == ""
    assert evaluation_view.scores(replace(VIEW, measured=(Measured(subject="base", scores={"loss": 1}),)), "en") == ""


def test_a_torn_last_line_and_foreign_lines_are_left_out(tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_text("\n".join([json.dumps(row(1)), "[]", '{"row": 2}', json.dumps(row(3)), json.dumps(row(4))[:-20]]))
    assert [each["row"] for each in evaluation_view.read(path)] == [1, 3]


def test_no_file_is_no_rows(tmp_path):
    assert evaluation_view.read(tmp_path / "none") == []


def test_no_more_rows_are_read_than_asked_for(tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(json.dumps(row(number)) + "\n" for number in range(50)))
    assert len(evaluation_view.read(path, most=20)) == 20


def test_answers_are_escaped_and_at_most_200():
    markup = evaluation_view.answers([row(number, answer=HOSTILE) for number in range(1, 251)], "en")
    assert "<img" not in markup and "&lt;img src=x" in markup
    assert markup.count("<tr>") == 1 + 200
    assert "The first 200 rows" in markup


def test_a_missing_answer_is_a_dash():
    assert "<td>–</td>" in evaluation_view.answers([row(1)], "en")


@pytest.mark.parametrize("loss", [None, "nan"])
def test_rows_without_both_losses_are_not_plotted(loss):
    assert evaluation_view.losses([row(1), row(2, base=loss)]) == ([1], [2.0], [1.0])


def test_each_row_is_a_dot_at_its_two_losses():
    figure = paired_losses([1, 5], [2.0, 3.0], [1.0, 2.5], language="zh")
    assert list(figure.data[1].x) == [2.0, 3.0] and list(figure.data[1].y) == [1.0, 2.5]
    assert figure.data[1].text == ("行 1", "行 5")
    assert figure.layout.xaxis.range == figure.layout.yaxis.range
