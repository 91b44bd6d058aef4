"""The expected figures are those of sklearn.metrics.precision_recall_fscore_support on the same labels."""

import subprocess
import sys

import pytest

from studio.engine.metrics.classification import confusion, label_scores, occurring, scores

TRUE = ["cat", "dog", "pig", "cat", "dog", "pig"]
SAID = ["cat", "pig", "dog", "cat", "cat", "dog"]


def test_accuracy_and_the_mean_f1_of_the_labels():
    found = scores(confusion(zip(TRUE, SAID, strict=True)))
    assert found == {"accuracy": pytest.approx(1 / 3), "macro_f1": pytest.approx(0.8 / 3), "rows": 6.0}


def test_precision_recall_and_f1_of_each_label():
    cat, dog, pig = label_scores(confusion(zip(TRUE, SAID, strict=True)))
    assert (cat.label, cat.precision, cat.recall, cat.f1) == ("cat", pytest.approx(2 / 3), 1.0, pytest.approx(0.8))
    assert (dog.precision, dog.recall, dog.f1, dog.rows, dog.predicted) == (0.0, 0.0, 0.0, 2, 2)
    assert (pig.precision, pig.recall, pig.rows, pig.predicted) == (0.0, 0.0, 2, 1)


def test_a_label_that_only_was_predicted_counts_too():
    counts = confusion([("a", "b")])
    assert occurring(counts) == ["a", "b"] and scores(counts)["macro_f1"] == 0.0


def test_nothing_measured_is_no_division_by_zero():
    assert scores(confusion([])) == {"accuracy": 0.0, "macro_f1": 0.0, "rows": 0.0}


def test_the_page_can_count_without_torch():
    code = "import studio.engine.metrics.classification, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
