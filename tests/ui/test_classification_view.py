import json
from dataclasses import replace

import pytest

from studio.events import Measured
from studio.jobs.monitor import JobView
from studio.ui import classification_view, evaluation_view
from tests.ui.recorded import HOSTILE


def row(number, label="ham", predicted="ham", text="hi", sure=0.75):
    before = {"predicted": "spam", "probability": 0.5}
    return {"row": number, "text": text, "label": label, "predicted": predicted, "probability": sure, "before": before}


@pytest.fixture
def read(tmp_path):
    def written(rows):
        path = tmp_path / "predictions.jsonl"
        path.write_text("".join(json.dumps(each) + "\n" for each in rows))
        return classification_view.read(path)

    return written


def test_the_matrix_counts_which_label_was_taken_for_which(read):
    found = read([row(1), row(2), row(3, predicted="spam"), row(4, "spam", "spam")])
    markup = classification_view.labels(found, "en")
    assert "<th scope='row'>ham</th><td class='better'>2</td><td class='worse'>1</td></tr>" in markup
    assert "<th scope='row'>spam</th><td class='quiet'>0</td><td class='better'>1</td></tr>" in markup
    assert "<th scope='row'>spam</th><td>50.0%</td><td>100.0%</td><td>66.7%</td><td>1</td></tr>" in markup


def test_with_many_labels_the_most_frequent_confusions_are_listed(read):
    rows = [row(n, f"l{n % 20:02}", f"l{n % 20:02}") for n in range(60)] + [row(n, "l01", "l02") for n in range(3)]
    markup = classification_view.labels(read(rows), "zh")
    assert "<th scope='row'>l01</th><td>l02</td><td>3</td>" in markup and "最常见的 20 种混淆" in markup
    assert markup.count("<table") == 2


def test_mistakes_come_first_and_at_most_200_rows_are_shown(read):
    found = read([*[row(n) for n in range(300)], row(301, predicted="spam", text="wrong one")])
    markup = classification_view.rows(found, "en")
    assert markup.index("wrong one") < markup.index("<td>0</td>") and markup.count("<tr>") == 1 + 200
    assert "Mistakes first; 200 rows are shown" in markup
    assert "<td class='worse'>spam</td><td>75.0%</td>" in markup


def test_texts_and_labels_are_escaped(read):
    found = read([row(1, HOSTILE, "x", HOSTILE), row(2, "x", HOSTILE)])
    for markup in (classification_view.labels(found, "en"), classification_view.rows(found, "en")):
        assert "<img" not in markup and "&lt;img src=x" in markup


def test_torn_and_foreign_lines_are_left_out_and_answers_are_no_labels(tmp_path, read):
    answers = {"row": 1, "prompt": "p", "base": {"loss": 1}, "adapter": {"loss": 1}}
    assert read([answers]) is None
    path = tmp_path / "predictions.jsonl"
    path.write_text(json.dumps(row(1)) + "\n[]\n" + json.dumps(row(2))[:-9])
    assert classification_view.read(path).counts.total() == 1
    assert classification_view.read(tmp_path / "none") is None


def test_a_probability_that_is_none_is_a_dash(read):
    assert "<td>–</td></tr>" in classification_view.rows(read([row(1, sure="high")]), "en")


def test_the_scores_stand_beside_those_of_the_untrained_head():
    sides = [("base", 0.5), ("adapter", 0.975)]
    told = tuple(Measured(subject=name, scores={"accuracy": value, "rows": 40.0}) for name, value in sides)
    view = replace(JobView("e", "evaluate", "e", 0.0), measured=told)
    markup = evaluation_view.scores(view, "en")
    assert "Untrained head" in markup and "<td class='better'>+47.5 points" in markup and "Base" not in markup
    assert "未训练的分类头" in evaluation_view.scores(view, "zh")
