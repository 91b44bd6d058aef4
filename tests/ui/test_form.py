from typing import Literal, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from studio import presets, specs
from studio.errors import SpecError
from studio.specs import LoraMethod, TrainingSpec, TrainSpec
from studio.ui import form
from studio.ui.texts import table

KINDS = [(section, kind) for section in specs.UNIONS for kind in specs.kinds(section)]
FIELDS = {field.key: field for field in form.fields()}


def holding(spec):
    """What each widget holds once a spec is shown, over what it held when the page opened."""
    values = dict(zip(FIELDS, widget_values(TrainSpec(), {}), strict=True))
    return widget_values(spec, values)


def widget_values(spec, before):
    updates = zip(FIELDS, form.write(spec), strict=True)
    return [update.get("value", before.get(key, "left over")) for key, update in updates]


def with_value(path, value):
    return list((dict(zip(FIELDS, holding(TrainSpec()), strict=True)) | {path: value}).values())


def faults_of(values):
    with pytest.raises(SpecError) as caught:
        form.read(values)
    return {fault.field: fault.reason for fault in caught.value.faults}


def spec_with(section, kind, **fields):
    fields = {section: {"kind": kind, **fields}, "quantization": {"kind": "none"}}
    return specs.parse(TrainSpec, fields)


def classes():
    """Every class of the spec with its section, those of methods and stages with their kind."""
    for section, info in TrainSpec.model_fields.items():
        if section in specs.UNIONS:
            yield from ((section, kind, each) for kind, each in specs.kinds(section).items())
        elif isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield section, None, info.annotation


def test_every_field_of_every_kind_has_a_widget_and_no_widget_is_without_a_field():
    wanted = {(f"{section}.{name}", kind) for section, kind, each in classes() for name in each.model_fields}
    got = set()
    for field in form.fields():
        got |= {(field.path, kind) for kind in field.by_kind or [None]}
    kinds = {(f"{section}.kind", kind) for section, kind in KINDS}
    assert got - {("trainer", None)} == (wanted - kinds) | {(f"{section}.kind", None) for section in specs.UNIONS}
    assert "trainer" in FIELDS


@pytest.mark.parametrize("path", sorted({field.path for field in form.fields()}))
def test_every_field_has_a_label_and_help_in_both_languages(path):
    for language in ("en", "zh"):
        assert table(language)[f"spec.{path}.label"].strip()
        assert table(language)[f"spec.{path}.help"].strip()


@pytest.mark.parametrize(("section", "kind"), KINDS)
def test_every_kind_is_named_and_described_in_both_languages(section, kind):
    for language in ("en", "zh"):
        for what in ("label", "help"):
            assert table(language)[f"spec.{section}.kinds.{kind}.{what}"].strip()
    assert specs.described(specs.kinds(section)[kind]).endswith((").", "."))


@pytest.mark.parametrize(("section", "kind", "each"), list(classes()))
def test_a_field_has_the_same_help_in_every_kind_and_the_form_its_default_and_limits(section, kind, each):
    schema = each.model_json_schema()["properties"]
    for name, info in each.model_fields.items():
        path = f"{section}.{name}"
        if name == "kind" and section in specs.UNIONS:
            continue
        assert info.description == table("en")[f"spec.{path}.help"]
        (field,) = [under for field in form.fields() if field.path == path and (under := field.under(kind))]
        assert field.default == info.get_default(call_default_factory=True)
        number = next((part for part in schema[name].get("anyOf", [schema[name]]) if part["type"] != "null"), {})
        least = number.get("minimum", number.get("exclusiveMinimum"))
        most = number.get("maximum", number.get("exclusiveMaximum"))
        assert (field.least, field.most) == (least, most)


def test_chinese_names_no_field_that_does_not_exist():
    assert {key for key in table("zh") if key.startswith("spec.")} <= set(table("en"))


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_survives_the_form(name):
    spec = specs.parse(TrainSpec, specs.read_yaml(presets.text(name)))
    assert form.read(holding(spec)) == spec


def test_the_defaults_survive_the_form():
    assert form.read(holding(TrainSpec())) == TrainSpec()


@pytest.mark.parametrize(("section", "kind"), KINDS)
def test_every_kind_survives_the_form(section, kind):
    spec = spec_with(section, kind)
    assert form.read(holding(spec)) == spec


def drawn(info, path):
    """Values of one field, mostly other than its default."""
    field = FIELDS.get(path) or FIELDS[f"{path}.folded"]
    words = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12)
    plain = {"text": words, "long_text": words, "flag": st.booleans(), "choice": st.sampled_from(field.choices or [""])}
    return {
        **plain,
        "whole": st.integers(2, 12),
        "number": st.floats(0.01, 0.4, allow_subnormal=False),
        "picks": st.lists(st.sampled_from(field.choices or [""]), min_size=1, max_size=3, unique=True),
        "names": st.lists(words, min_size=1, max_size=3, unique=True),
        "numbers": st.lists(st.integers(0, 9), max_size=3),
        "mapping": st.dictionaries(words, st.integers(1, 9), max_size=3),
    }[field.widget] | (st.none() if field.optional else st.nothing())


@pytest.mark.parametrize(("section", "kind"), KINDS)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_settings_far_from_the_defaults_survive_the_form_and_the_command_line(section, kind, data):
    each = specs.kinds(section)[kind]
    chosen = {
        name: data.draw(drawn(info, f"{section}.{name}"), label=name)
        for name, info in each.model_fields.items()
        if get_origin(info.annotation) is not Literal or name != "kind"
    }
    try:
        spec = spec_with(section, kind, **chosen)
    except SpecError:  # fields that do not go together
        spec = spec_with(section, kind)
    assert form.read(holding(spec)) == spec
    assert specs.parse(TrainSpec, specs.with_overrides({}, specs.changes(spec))) == spec


@pytest.mark.parametrize(("section", "kind"), KINDS)
def test_another_kind_leaves_only_its_own_fields_in_sight_with_its_defaults(section, kind):
    each = specs.kinds(section)[kind]
    updates = form.switched(section, kind)
    seen = {FIELDS[key].name for key, update in updates.items() if update.get("visible")}
    assert seen == set(each.model_fields) - {"kind"}
    values = dict(zip(FIELDS, holding(TrainSpec()), strict=True))
    values |= {key: update["value"] for key, update in updates.items() if "value" in update}
    values |= {f"{section}.kind": kind, "quantization.kind": "none"}
    assert form.read(list(values.values())) == spec_with(section, kind)


def test_limits_follow_the_kind():
    assert form.switched("method", "vera")["method.rank"]["maximum"] == 16_384
    assert form.switched("method", "lora")["method.rank"]["maximum"] == 4096
    assert form.switched("stage", "dpo")["stage.label_smoothing"]["maximum"] == 0.5


def test_what_the_chosen_method_does_not_have_is_not_sent():
    values = dict(zip(FIELDS, holding(spec_with("method", "full")), strict=True))
    values["method.rank"] = "nonsense"
    assert form.read(list(values.values())).method == specs.FullMethod()


def test_a_method_that_does_not_exist_and_one_that_is_not_chosen_are_told():
    assert "Did you mean" in faults_of(with_value("method.kind", "lorra"))["method"]
    assert faults_of(with_value("method.kind", None)) == {"method.kind": "is empty. Fill it in; the default is lora."}


def test_a_field_that_is_folded_under_one_method_and_in_sight_under_another_has_a_widget_for_each():
    assert form.switched("method", "lora")["method.train_tokens.folded"]["visible"]
    assert not form.switched("method", "lora")["method.train_tokens"]["visible"]
    assert form.switched("method", "trainable_tokens")["method.train_tokens"]["visible"]


def test_patterns_are_read_line_by_line_and_what_is_no_mapping_is_told():
    values = with_value("method.rank_pattern", "layers.0.q_proj: 8\n^model.*v_proj$: 4")
    assert form.read(values).method.rank_pattern == {"layers.0.q_proj": 8, "^model.*v_proj$": 4}
    said = faults_of(with_value("method.rank_pattern", "just words"))["method.rank_pattern"]
    assert said == "must hold lines of the form name: value, but holds text."
    assert "line 1" in faults_of(with_value("trainer", "a: b: c"))["trainer"]
    assert "number" in faults_of(with_value("method.rank_pattern", "q_proj: many"))["method.rank_pattern.q_proj"]


def test_further_arguments_of_the_trainer_survive_the_form():
    spec = TrainSpec(trainer={"adam_beta2": 0.95, "dataloader_num_workers": 0, "lr_scheduler_kwargs": {"power": 2}})
    assert form.read(holding(spec)) == spec


@pytest.mark.parametrize(
    "prompts", [("one\ntwo", "three"), (r"C:\new\\folder", "a"), (r"literal \n", "\\"), ("你是谁?",), ()]
)
def test_prompts_with_line_breaks_and_backslashes_survive_the_form(prompts):
    spec = TrainSpec(evaluation=specs.EvaluationSpec(prompts=prompts))
    assert form.read(holding(spec)) == spec


def test_training_far_from_the_defaults_survives_the_form():
    training = TrainingSpec(learning_rate=3e-6, max_steps=1, scheduler="linear", report_to=("wandb", "tensorboard"))
    spec = TrainSpec(training=training, method=LoraMethod(rank=8, alpha=0.5, layers=(0, 3), init="eva"))
    assert form.read(holding(spec)) == spec


def test_weights_survive_the_form_and_are_read_however_they_are_parted():
    data = specs.DataSpec(datasets=("a", "b", "c"), weights=(0.7, 1 / 3, 2), repeat=True, group="meta.book")
    spec = TrainSpec(data=data)
    values = holding(spec)
    assert form.read(values) == spec
    place = list(FIELDS).index("data.weights")
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


def test_an_emptied_number_says_the_default_of_the_chosen_method():
    values = dict(zip(FIELDS, holding(spec_with("method", "vera")), strict=True)) | {"method.rank": None}
    assert faults_of(list(values.values()))["method.rank"].endswith("the default is 256.")


def test_an_empty_optional_number_is_none():
    assert form.read(with_value("training.max_steps", " ")).training.max_steps is None


def test_text_in_an_optional_number_is_a_fault():
    assert "whole number" in faults_of(with_value("training.max_steps", "many"))["training.max_steps"]


def test_half_a_batch_is_a_fault():
    assert "whole number" in faults_of(with_value("training.batch_size", 1.5))["training.batch_size"]


def test_all_faults_are_told_together():
    values = dict(zip(FIELDS, with_value("training.learning_rate", None), strict=True)) | {"method.rank": 0}
    assert set(faults_of(list(values.values()))) == {"training.learning_rate", "method.rank"}


def test_an_explained_fault_carries_the_label_and_the_path():
    with pytest.raises(SpecError) as caught:
        form.read(with_value("training.learning_rate", -1))
    assert form.explained(caught.value, "en").startswith("Learning rate (training.learning_rate): must be above")
    assert form.explained(caught.value, "zh").startswith("学习率 (training.learning_rate): ")


def test_a_fault_inside_a_list_carries_the_label_of_the_list():
    with pytest.raises(SpecError) as caught:
        form.read(with_value("data.weights", "much"))
    assert form.explained(caught.value, "en").startswith("Mixing weights (data.weights.0): ")


def test_limits_come_from_the_spec():
    field = FIELDS["data.validation_share"]
    assert (field.least, field.most, field.front, field.optional) == (0.0, 0.5, True, False)


def test_names_that_nobody_registered_stay_visible():
    assert form.names_in(["a", "b"], ["b", "gone"]) == ["a", "b", "gone"]
