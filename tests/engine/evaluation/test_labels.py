"""A classifier measured: the label of each row, before and after."""

import json

import pytest

from studio.data import registry
from studio.engine.evaluation.answers import evaluate
from studio.engine.evaluation.labels import _examples
from studio.engine.train import train
from studio.errors import DataError
from studio.events import Measured, Note, Phase
from studio.specs import EvaluateSpec, TrainSpec, parse

TEXTS = {"ham": ("see you", "good night", "hello"), "spam": ("win a prize", "free cash", "claim it now")}


def register(path, name, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return registry.add(path, name, format="classification").name


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """(spec, adapter, record, home) of one run, shared."""
    place = tmp_path_factory.mktemp("classifier")
    patch = pytest.MonkeyPatch()
    patch.setenv("STUDIO_HOME", str(place / "home"))
    rows = [{"text": f"{t} {n}", "label": label} for n in range(6) for label, ts in TEXTS.items() for t in ts]
    register(place / "sms.jsonl", "sms", rows)
    values = {
        "model": {"name": str(tiny())},
        "quantization": {"kind": "none"},
        "data": {"datasets": ["sms"], "max_length": 32, "validation_share": 0.1, "test_share": 0.25},
        "stage": {"kind": "classify"},
        "method": {"rank": 4},
        "training": {"max_steps": 14, "batch_size": 8, "accumulation": 1, "learning_rate": 1e-2, "precision": "fp32"},
    }
    spec = parse(TrainSpec, values | {"model": values["model"] | {"dtype": "fp32"}})
    adapter, record = place / "adapter", place / "record.json"
    train(
        spec,
        checkpoints=place / "checkpoints",
        adapter=adapter,
        record=record,
        emit=lambda event: None,
        stopping=lambda: False,
    )
    yield spec, adapter, json.loads(record.read_text())
    patch.undo()


@pytest.fixture
def measure(trained, tmp_path):
    def go(stopping=lambda: False, **values):
        spec, adapter, _ = trained
        out, told = tmp_path / "predictions.jsonl", []
        wanted = EvaluateSpec(run="r", **({"max_samples": None} | values))
        done = evaluate(wanted, trained=spec, adapter=adapter, predictions=out, emit=told.append, stopping=stopping)
        return [json.loads(line) for line in out.read_text().splitlines()], told, done

    return go


def test_the_test_rows_are_measured_and_the_figures_are_those_of_the_run(trained, measure):
    lines, told, done = measure()
    examined = trained[2]["examined"]
    scores = {event.subject: event.scores for event in told if isinstance(event, Measured)}
    assert done and len(lines) == 9
    assert scores == {"base": examined["before"]["test"], "adapter": examined["after"]["test"]}
    assert scores["adapter"]["accuracy"] > 0.8


def test_each_row_has_its_label_what_was_predicted_and_how_sure_that_was(measure):
    lines, _, _ = measure()
    assert [line["row"] for line in lines] == list(range(1, 10))
    for line in lines:
        assert line["label"] in TEXTS and line["text"].startswith(TEXTS[line["label"]])
        for said in (line, line["before"]):
            assert said["predicted"] in TEXTS and 0.5 <= said["probability"] <= 1


def test_another_dataset_is_measured_without_the_labels_that_were_not_learned(measure, tmp_path):
    rows = [{"text": "win a prize", "label": "spam"}, {"text": "hello", "label": "eggs"}]
    name = register(tmp_path / "other.jsonl", "other", rows)
    lines, told, _ = measure(dataset=name)
    registry.remove(name)
    assert [line["text"] for line in lines] == ["win a prize"]
    assert any("1 rows have labels that the run did not learn and are left out: eggs." in e.text for e in told
               if isinstance(e, Note))  # fmt: skip


def test_f18_a_dataset_without_any_of_the_labels_is_refused(measure, tmp_path):
    name = register(tmp_path / "other.jsonl", "other", [{"text": "hello", "label": "eggs"}])
    with pytest.raises(DataError, match="No row has one of the labels that the run learned: ham, spam"):
        measure(dataset=name)
    registry.remove(name)


def test_of_many_rows_those_at_equal_distances_are_measured(trained):
    spec, _, _ = trained
    chosen = _examples(EvaluateSpec(run="r", dataset="sms", max_samples=4), spec, lambda event: None)
    assert [example.text for example in chosen] == ["see you 0", "win a prize 1", "see you 3", "win a prize 4"]


def test_a_stop_keeps_the_rows_that_are_done(measure):
    asked = []

    def stopping():
        asked.append(1)
        return len(asked) > 1

    lines, told, done = measure(stopping, batch_size=1)
    assert done is None and len(lines) == 8
    assert [event.done for event in told if isinstance(event, Phase) and event.name == "evaluate"][-1] == 8
