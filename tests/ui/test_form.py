import pytest

from studio import presets, specs
from studio.errors import SpecError
from studio.specs import LoraMethod, TrainingSpec, TrainSpec
from studio.ui import form
from studio.ui.texts import table


def values_of(spec):
    return [update["value"] for update in form.write(spec)]


def with_value(path, value):
    values = dict(zip((field.path for field in form.fields()), values_of(TrainSpec()), strict=True))
    return list((values | {path: value}).values())


def faults_of(values):
    with pytest.raises(SpecError) as caught:
        form.read(values)
    return {fault.field: fault.reason for fault in caught.value.faults}


def test_every_field_of_the_spec_has_a_widget():
    spec_paths = {
        f"{section}.{name}" for section, info in TrainSpec.model_fields.items() for name in info.annotation.model_fields
    }
    assert {field.path for field in form.fields()} == spec_paths


@pytest.mark.parametrize("path", [field.path for field in form.fields()])
def test_every_field_has_a_label_and_help_in_both_languages(path):
    for language in ("en", "zh"):
        assert table(language)[f"spec.{path}.label"].strip()
        assert table(language)[f"spec.{path}.help"].strip()


def test_chinese_names_no_field_that_does_not_exist():
    assert {key for key in table("zh") if key.startswith("spec.")} <= set(table("en"))


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_survives_the_form(name):
    spec = specs.parse(TrainSpec, specs.read_yaml(presets.text(name)))
    assert form.read(values_of(spec)) == spec


def test_the_defaults_survive_the_form():
    assert form.read(values_of(TrainSpec())) == TrainSpec()


@pytest.mark.parametrize(
    "prompts", [("one\ntwo", "three"), (r"C:\new\\folder", "a"), (r"literal \n", "\\"), ("你是谁?",), ()]
)
def test_prompts_with_line_breaks_and_backslashes_survive_the_form(prompts):
    spec = TrainSpec(evaluation=specs.EvaluationSpec(prompts=prompts))
    assert form.read(values_of(spec)) == spec


def test_settings_far_from_the_defaults_survive_the_form():
    spec = TrainSpec(
        training=TrainingSpec(learning_rate=3e-6, max_steps=1, scheduler="linear"),
        method=LoraMethod(rank=8, alpha=0.5, dora=True, target_modules=("q_proj", "v_proj")),
    )
    assert form.read(values_of(spec)) == spec


def test_weights_survive_the_form_and_are_read_however_they_are_parted():
    data = specs.DataSpec(datasets=("a", "b", "c"), weights=(0.7, 1 / 3, 2), repeat=True, group="meta.book")
    spec = TrainSpec(data=data)
    values = values_of(spec)
    assert form.read(values) == spec
    place = [field.path for field in form.fields()].index("data.weights")
    for text in ("1 2 3", "1,2, 3", " 1\n2\n\n3\n", "1; 2; 3"):
        values[place] = text
        assert form.read(values).data.weights == (1, 2, 3)
    values[place] = "1\nmuch\n3"
    assert faults_of(values) == {"data.weights.1": "must be a number, but is 'much'."}


def test_a_wrong_number_comes_back_with_its_path_and_limit():
    assert faults_of(with_value("training.learning_rate", -1)) == {
        "training.learning_rate": "must be above 0, but is -1."
    }


def test_an_emptied_number_says_its_default():
    assert faults_of(with_value("training.learning_rate", None)) == {
        "training.learning_rate": "is empty. Fill it in; the default is 0.0002."
    }


def test_an_empty_optional_number_is_none():
    assert form.read(with_value("training.max_steps", " ")).training.max_steps is None


def test_text_in_an_optional_number_is_a_fault():
    assert "whole number" in faults_of(with_value("training.max_steps", "many"))["training.max_steps"]


def test_half_a_batch_is_a_fault():
    assert "whole number" in faults_of(with_value("training.batch_size", 1.5))["training.batch_size"]


def test_all_faults_are_told_together():
    values = with_value("training.learning_rate", None)
    values[[field.path for field in form.fields()].index("method.rank")] = 0
    assert set(faults_of(values)) == {"training.learning_rate", "method.rank"}


def test_an_explained_fault_carries_the_label_and_the_path():
    with pytest.raises(SpecError) as caught:
        form.read(with_value("training.learning_rate", -1))
    assert form.explained(caught.value, "en").startswith("Learning rate (training.learning_rate): must be above")
    assert form.explained(caught.value, "zh").startswith("学习率 (training.learning_rate): ")


def test_limits_come_from_the_spec():
    field = next(field for field in form.fields() if field.path == "data.validation_share")
    assert (field.least, field.most, field.front, field.optional) == (0.0, 0.5, True, False)


def test_names_that_nobody_registered_stay_visible():
    assert form.names_in(["a", "b"], ["b", "gone"]) == ["a", "b", "gone"]
