"""What a user can ask for, and what is said when it is wrong."""

import math

import pytest
import yaml

from studio import specs
from studio.errors import SpecError
from studio.specs import EvaluateSpec, ExportSpec, TrainSpec, parse


def faults(values, kind=TrainSpec):
    with pytest.raises(SpecError) as caught:
        parse(kind, values)
    return {fault.field: fault.reason for fault in caught.value.faults}


def test_yaml_out_and_in_is_the_same_spec():
    spec = parse(TrainSpec, {"data": {"datasets": ["a", "b"]}, "training": {"learning_rate": 3e-5, "max_steps": 4}})
    assert parse(TrainSpec, yaml.safe_load(specs.dump(spec))) == spec
    assert parse(TrainSpec, yaml.safe_load(specs.dump(spec, only_changes=True)) or {}) == spec


def test_the_overrides_of_a_spec_make_the_same_spec():
    spec = parse(
        TrainSpec,
        {
            "data": {"datasets": ["a"], "validation_share": 0.1},
            "template": {"system": "Be brief: 'yes', or \"no\".\n# 是"},
            "evaluation": {"prompts": ["你是谁?", "a, b"]},
            "method": {"rank": 64, "target_modules": ["q_proj", "v_proj"]},
        },
    )
    assert parse(TrainSpec, specs.with_overrides({}, specs.changes(spec))) == spec


def test_every_wrong_field_is_told_at_once_with_its_path():
    found = faults({"training": {"learning_rate": -1, "epochs": 0}, "method": {"rank": 0}, "modle": {}})
    assert set(found) == {"training.learning_rate", "training.epochs", "method.rank", "modle"}
    assert found["modle"] == "is not a field. Did you mean model?"
    assert "above 0" in found["training.learning_rate"] and "-1" in found["training.learning_rate"]


@pytest.mark.parametrize("rate", [0, -1e-4, math.nan, math.inf, "fast", None, [1]])
def test_f48_a_learning_rate_that_is_none_is_refused(rate):
    assert set(faults({"training": {"learning_rate": rate}})) == {"training.learning_rate"}


def test_f48_a_learning_rate_written_as_text_is_read_as_a_number():
    assert parse(TrainSpec, {"training": {"learning_rate": "2e-4"}}).training.learning_rate == 2e-4
    overridden = specs.with_overrides({}, ["training.learning_rate=2e-4"])
    assert parse(TrainSpec, overridden).training.learning_rate == 2e-4


@pytest.mark.parametrize("field", ["batch_size", "accumulation"])
@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_f49_batch_and_accumulation_are_whole_and_positive(field, value):
    assert set(faults({"training": {field: value}})) == {f"training.{field}"}


@pytest.mark.parametrize(("field", "value"), [("epochs", 0), ("epochs", -1), ("max_steps", 0), ("max_grad_norm", -1)])
def test_f50_what_the_libraries_accept_and_should_not_is_refused(field, value):
    assert set(faults({"training": {field: value}})) == {f"training.{field}"}


def test_contradictions_name_both_sides():
    assert "data.validation_share" in faults({"evaluation": {"steps": 5}})["evaluation.steps"]


def test_one_dataset_may_be_written_without_a_list():
    assert parse(TrainSpec, {"data": {"datasets": "identity-en"}}).data.datasets == ("identity-en",)
    assert "twice" in faults({"data": {"datasets": ["a", "a"]}})["data.datasets"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"weights": [1]}, "has 1 for 2 datasets"),
        ({"weights": [1, 1, 1]}, "has 3 for 2 datasets"),
        ({"weights": [1, 0]}, "must all be above 0, but one is 0"),
        ({"weights": [-0.5, 1]}, "must all be above 0, but one is -0.5"),
    ],
)
def test_weights_are_one_to_a_dataset_and_above_zero(data, said):
    assert said in faults({"data": {"datasets": ["a", "b"], **data}})["data.weights"]


@pytest.mark.parametrize("weight", ["much", None, math.nan, math.inf])
def test_a_weight_that_is_no_number_is_refused(weight):
    assert set(faults({"data": {"datasets": ["a", "b"], "weights": [1, weight]}})) == {"data.weights.1"}


def test_repeating_needs_weights_to_repeat_by():
    assert "Fill in data.weights" in faults({"data": {"datasets": ["a"], "repeat": True}})["data.repeat"]
    assert parse(TrainSpec, {"data": {"datasets": ["a"], "weights": [2], "repeat": True}}).data.weights == (2.0,)


@pytest.mark.parametrize(
    ("text", "said"),
    [("training: [", "line 1"), ("- a", "a list"), ("", "nothing"), ("a: b: c", "line 1, column 5")],
)
def test_a_file_that_is_no_spec_says_where(tmp_path, text, said):
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=said):
        specs.load(path)


@pytest.mark.parametrize("override", ["training", "=1", "training.max_steps.x=1", "training.max_steps=[1"])
def test_an_override_that_cannot_be_applied_is_refused(override):
    with pytest.raises(SpecError):
        parse(TrainSpec, specs.with_overrides({"training": {"max_steps": 5}}, [override]))


@pytest.mark.parametrize("kind", [TrainSpec, EvaluateSpec, ExportSpec, specs.Sampling])
def test_every_field_has_a_help_text(kind):
    def check(section, path):
        for name, field in section.model_fields.items():
            assert field.description, f"{path}{name} has no docstring"
            if hasattr(field.annotation, "model_fields"):
                check(field.annotation, f"{path}{name}.")

    check(kind, "")


def test_a_spec_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        TrainSpec().training.epochs = 5
