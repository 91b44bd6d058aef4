"""What a model rules out is told before it loads, all together, with names of that model."""

import json
import re

import pytest

from studio.engine.counting import faults, shapes, target_faults, targets
from studio.engine.counting.faults import faults_on
from studio.engine.counting.shapes import from_header
from studio.specs import TrainSpec, parse


def spec(folder, **method):
    values = {"model": {"name": str(folder)}, "quantization": {"kind": "none"}, "method": {"kind": "lora"} | method}
    return parse(TrainSpec, values)


def told(folder, **method):
    return [str(fault) for fault in target_faults(spec(folder, **method))]


def test_a_method_that_fits_has_no_fault(tiny):
    assert told(tiny()) == [] and told(tiny("gpt2"), split_fused=True) == []


def test_a_misspelt_name_is_told_with_the_nearest_one_and_the_others(tiny):
    (fault,) = told(tiny(), target_modules=["q_prj"])
    assert fault.startswith("method.target_modules: 'q_prj' names no layer of ")
    hint, _, layers = fault.partition(" Layers: ")
    assert hint.endswith(" Did you mean 'q_proj'?") and {"q_proj", "up_proj", "lm_head"} <= set(layers[:-1].split(", "))


def test_all_wrong_words_are_told_together(tiny):
    found = told(
        tiny(),
        target_modules=["q_proj", "c_attn"],
        exclude_modules=["mpl"],
        modules_to_save=["lm_hed"],
        layers=[1, 7],
        train_tokens=["two tokens"],
    )
    assert [fault.partition(":")[0] for fault in found] == [
        "method.target_modules",
        "method.exclude_modules",
        "method.modules_to_save",
        "method.layers",
        "method.train_tokens",
    ]
    assert "names layer 7, but the last layer of" in found[3] and found[3].endswith("is 1.")
    assert "'two tokens' is" in found[4] and found[4].endswith("Name texts that are one token.")


def test_a_pattern_that_is_none_is_told(tiny):
    assert "is no regular expression" in told(tiny(), target_modules=["re:q_(proj"])[0]
    assert "is no regular expression" in told(tiny(), rank_pattern={"q_(proj": 4})[0]


def test_a_rank_for_layers_that_are_not_adapted_is_told(tiny):
    (fault,) = told(tiny(), target_modules=["q_proj", "v_proj"], rank_pattern={"q_prj": 4})
    assert fault == (
        "method.rank_pattern: 'q_prj' fits none of the adapted layers. Did you mean 'q_proj'? Layers: q_proj, v_proj."
    )


def test_whole_sublayers_and_embeddings_cannot_be_adapted(tiny):
    for word in ("self_attn", "embed_tokens", "re:.*norm"):
        assert "which is no linear layer" in told(tiny(), target_modules=[word])[0]


def test_excluding_everything_leaves_nothing(tiny):
    assert (
        "leaves no layer to adapt" in told(tiny(), target_modules=["q_proj"], exclude_modules=["self_attn.q_proj"])[0]
    )


@pytest.mark.parametrize(
    "method, said",
    [
        ({"kind": "oft", "block_size": 24}, r"block_size: is 24, which does not divide .*\(64, 128\).* of 8, 16, 32"),
        ({"kind": "boft", "block_size": 3, "butterfly_factors": 2}, "must be even with 2 butterfly factors"),
        ({"kind": "vblora", "vector_length": 48}, r"vector_length: is 48, which does not divide .*Choose one of"),
        ({"kind": "vblora", "num_vectors": 2, "top_k": 3}, "the bank has 2 vectors"),
        ({"kind": "fourierft", "frequencies": 5000}, "has only 2048 of them"),
        ({"kind": "hra", "rank": 65}, "is 65, but .* has 64 inputs"),
        ({"kind": "miss", "rank": 24, "shape": "bat"}, "rank: is 24, which does not divide"),
        ({"kind": "miss", "shape": "mini", "mini_rank": 7}, "mini_rank: is 7, which does not divide"),
        ({"kind": "freeze", "last_layers": 3}, "last_layers: is 3, but .* has 2 decoder layers"),
        ({"kind": "bitfit"}, "has none. Use ln_tuning or lora"),
        ({"kind": "prefix_tuning", "virtual_tokens": 100}, "take 612 positions together, but the model has 512"),
        ({"split_fused": True}, "split_fused: needs a layer that holds query, key and value"),
        ({"init": "pissa", "rank": 40}, r"with init pissa .*which is 64 by 32, can have 32 at most"),
    ],
)
def test_sizes_that_do_not_fit_are_told_with_what_would(tiny, method, said):
    assert any(re.search(said, fault) for fault in told(tiny(), **method))


def test_a_model_type_that_a_method_does_not_know_is_told(tiny):
    assert "Use prefix_tuning instead" in told(tiny("qwen2"), kind="adaption_prompt")[0]
    assert "which is a Conv1D layer, and loha cannot" in told(tiny("gpt2"), kind="loha")[0]
    unknown = from_header("strange", {"model_type": "strange"}, {"model.embed_tokens.weight": (9, 4)} | layer())
    assert "auto is not known for models of the type strange" in faults_on(spec(tiny(), kind="ia3"), unknown)[0].reason


def test_a_bottleneck_needs_sublayers_to_stand_behind(tiny):
    bare = from_header("bare", {"model_type": "bare"}, {"model.embed_tokens.weight": (9, 4)} | layer())
    (fault,) = faults_on(spec(tiny(), kind="bottleneck"), bare)
    assert fault.reason == ("bottleneck finds no MLP under a known name in the layers of bare: self_attn. Use lora.")


def layer():
    return {"model.layers.0.self_attn.q_proj.weight": (4, 4), "model.norm.weight": (4,)}


def test_what_is_said_of_the_libraries_is_still_so():
    """The tables here stand for PEFT's and the methods' own, which the page cannot import."""
    from peft.tuners.adaption_prompt.config import TRANSFORMERS_MODEL_CONFIG
    from peft.utils import constants

    from studio.engine.counting.targeted import DOUBLED
    from studio.engine.methods import additive, anatomy, fused, starts

    for kind, names in targets._SCALED.items():
        assert set(names) == set(constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING[kind])
        assert [names[-1]] == constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(kind, [names[-1]])
    assert set(faults.PROMPTED) == set(TRANSFORMERS_MODEL_CONFIG)
    assert targets._LAST_OF_MLP == additive._LAST_OF_MLP
    assert faults.SUBLAYERS == {"MLP": anatomy._MLP, "attention": anatomy._ATTENTION}
    assert targets._FUSED == fused._NAMES and starts.CHANGES_THE_BASE == DOUBLED


def test_a_classifier_has_no_head_that_writes(tiny):
    asked = parse(
        TrainSpec,
        {
            "model": {"name": str(tiny())},
            "method": {"target_modules": ["lm_head"]},
            "stage": {"kind": "classify"},
        },
    )
    assert "'lm_head' names no layer" in target_faults(asked)[0].reason


def test_a_changed_model_is_read_anew(tiny, tmp_path):
    import os
    import shutil

    folder = shutil.copytree(tiny(), tmp_path / "model")
    assert shapes.shapes_of(str(folder)).layers == 2
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "qwen2"}))
    os.utime(folder / "config.json", ns=(1, 1))
    assert shapes.shapes_of(str(folder)).kind == "qwen2"
