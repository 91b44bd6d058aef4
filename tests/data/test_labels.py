import json

import pytest

from studio.data import registry
from studio.data.labels import labels_of
from studio.errors import DataError
from studio.specs import DataSpec

pytestmark = pytest.mark.usefixtures("studio_home")


@pytest.fixture
def added(tmp_path):
    def add(name, labels):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps({"text": f"t{n}", "label": label}) for n, label in enumerate(labels)))
        return registry.add(path, name, format="classification").name

    return add


def test_labels_of_all_datasets_are_sorted_by_name(added):
    data = DataSpec(datasets=(added("a", ["spam", "ham", "spam"]), added("b", ["eggs"])))
    assert labels_of(data) == ("eggs", "ham", "spam")


def test_whole_numbers_are_sorted_by_their_value(added):
    assert labels_of(DataSpec(datasets=(added("stars", [10, 2, 1, 2]),))) == ("1", "2", "10")


def test_one_label_is_not_enough(added):
    with pytest.raises(DataError, match="have only the label 'ham', and a classifier tells at least two apart"):
        labels_of(DataSpec(datasets=(added("a", ["ham", "ham"]),)))


def test_rows_that_are_read_in_another_way_have_other_labels(added, tmp_path):
    name = added("a", ["x", "y"])
    assert labels_of(DataSpec(datasets=(name,))) == ("x", "y")
    registry.remove(name)
    registry.add(tmp_path / "a.jsonl", name, format="classification", columns={"text": "label", "label": "text"})
    assert labels_of(DataSpec(datasets=(name,))) == ("t0", "t1")
