"""Which layers a method is put beside: by PEFT's own rules, and a name that stands for nothing is told."""

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from studio.engine.methods.placing import LINEAR, chosen, placed
from studio.errors import SpecError
from studio.specs import LoraMethod


@pytest.fixture(scope="module")
def models(tiny):
    return {kind: AutoModelForCausalLM.from_pretrained(tiny(kind)) for kind in ("llama", "qwen2", "gpt2")}


def layers(model, **settings):
    return set(chosen(LoraMethod(**settings), model))


def by_peft(model_folder, **settings):
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(model_folder), LoraConfig(r=1, **settings))
    return set(model.base_model.targeted_module_names)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_all_linear_is_what_peft_means_by_it(tiny, models, kind):
    assert layers(models[kind]) == by_peft(tiny(kind), target_modules="all-linear", fan_in_fan_out=kind == "gpt2")


@pytest.mark.parametrize(
    ("settings", "theirs"),
    [
        ({"target_modules": ["q_proj", "mlp.up_proj"]}, {"target_modules": ["q_proj", "mlp.up_proj"]}),
        ({"target_modules": [r"re:.*\.1\..*_proj"]}, {"target_modules": r".*\.1\..*_proj"}),
        (
            {"target_modules": ["q_proj", "k_proj"], "layers": [1], "exclude_modules": ["k_proj"]},
            {"target_modules": ["q_proj", "k_proj"], "layers_to_transform": [1], "exclude_modules": ["k_proj"]},
        ),
    ],
)
def test_names_patterns_and_layers_mean_what_they_mean_to_peft(tiny, models, settings, theirs):
    assert layers(models["llama"], **settings) == by_peft(tiny(), **theirs)


@pytest.mark.parametrize(("kind", "count"), [("llama", 8), ("qwen2", 8), ("gpt2", 4)])
def test_attention_means_the_linear_layers_of_attention_alone(models, kind, count):
    found = layers(models[kind], target_modules=["attention"])
    assert len(found) == count and all("attn" in name for name in found)


def test_a_config_holds_short_names_where_these_mean_the_same_layers(models):
    assert placed(LoraMethod(), models["llama"])["target_modules"] == sorted(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    assert placed(LoraMethod(layers=[0], target_modules=["q_proj"]), models["llama"])["target_modules"] == [
        "model.layers.0.self_attn.q_proj"
    ]


def test_what_trains_whole_is_not_adapted_too(models):
    found = placed(LoraMethod(modules_to_save=["mlp"]), models["llama"])
    assert found["modules_to_save"] == ["mlp"] and "up_proj" not in found["target_modules"]


def test_f44_names_that_no_layer_has_are_all_told_with_the_nearest(models):
    wrong = LoraMethod(target_modules=["q_prj"], exclude_modules=["down"], modules_to_save=["lm_haed"], layers=[2])
    with pytest.raises(SpecError) as error:
        chosen(wrong, models["llama"])
    assert [fault.field for fault in error.value.faults] == [
        "method.target_modules",
        "method.exclude_modules",
        "method.modules_to_save",
        "method.layers",
    ]
    assert "Did you mean 'q_proj'?" in str(error.value) and "the last layer of this model is 1" in str(error.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"target_modules": ["re:("]}, "is no regular expression"),
        ({"target_modules": ["q_proj"], "exclude_modules": ["q_proj"]}, "leaves no layer to adapt"),
        ({"target_modules": ["embed_tokens"]}, "is a Embedding and no linear layer"),
    ],
)
def test_a_choice_that_cannot_be_adapted_says_why(models, settings, told):
    with pytest.raises(SpecError, match=told):
        chosen(LoraMethod(**settings), models["llama"])


def test_a_method_that_cannot_adapt_conv1d_names_others(models):
    with pytest.raises(SpecError, match=r"Conv1D layer, and lora cannot adapt these\. Use "):
        chosen(LoraMethod(), models["gpt2"], LINEAR)
