"""A model's layers and sizes are read from its folder, whole, in shards, without its head, or packed."""

import json
import struct

import pytest

from studio.engine.counting import shapes_of
from studio.engine.counting.shapes import from_header
from studio.engine.models.tokenizer import NotHere
from studio.errors import ModelError

LLAMA = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "tie_word_embeddings": True,
}
WEIGHTS = {
    "model.embed_tokens.weight": (10, 8),
    "model.layers.0.input_layernorm.weight": (8,),
    "model.layers.0.mlp.down_proj.weight": (8, 16),
    "model.layers.0.self_attn.k_proj.weight": (4, 8),
    "model.norm.weight": (8,),
}


def test_layers_embeddings_norms_and_a_tied_head_are_told_apart(tiny):
    found = shapes_of(str(tiny("qwen2")))
    assert found.tied and found.head == "lm_head" and found.layers == 2 and found.hidden == 64
    assert found.linear["lm_head"].outputs == found.embedding.inputs == 6400
    k_proj = found.linear["model.layers.1.self_attn.k_proj"]
    assert (k_proj.inputs, k_proj.outputs, k_proj.bias, k_proj.number) == (64, 32, True, 1)
    assert "model.norm" in found.norms and len(found.norms) == 5


def test_the_layers_of_gpt2_are_transposed(tiny):
    found = shapes_of(str(tiny("gpt2")))
    c_attn = found.linear["transformer.h.0.attn.c_attn"]
    assert (c_attn.inputs, c_attn.outputs, c_attn.transposed) == (64, 192, True)
    assert {layer.leaf for layer in found.linear.values()} == {"c_attn", "c_proj", "c_fc", "lm_head"}


def test_names_saved_without_the_head_get_their_first_part():
    bare = {name.removeprefix("model."): size for name, size in WEIGHTS.items()}
    assert dict(from_header("bare", LLAMA, bare).weights) == dict(from_header("whole", LLAMA, WEIGHTS).weights)


def test_a_head_of_its_own_is_found_where_the_config_says_nothing():
    config = {key: value for key, value in LLAMA.items() if key != "tie_word_embeddings"}
    assert from_header("tied", config, WEIGHTS).tied
    assert not from_header("own", config, WEIGHTS | {"lm_head.weight": (10, 8)}).tied


def test_shards_are_read_through_their_index(tiny, tmp_path):
    shards = {"a.safetensors": dict(list(WEIGHTS.items())[:2]), "b.safetensors": dict(list(WEIGHTS.items())[2:])}
    folder = tmp_path / "sharded"
    folder.mkdir()
    for name, sizes in shards.items():
        _write(folder / name, sizes)
    index = {"weight_map": {weight: name for name, sizes in shards.items() for weight in sizes}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(LLAMA))
    assert shapes_of(str(folder)).weights == from_header("", LLAMA, WEIGHTS).weights


def _write(path, sizes):
    table, end = {}, 0
    for name, size in sizes.items():
        count = 4
        for side in size:
            count *= side
        table[name] = {"dtype": "F32", "shape": list(size), "data_offsets": [end, end + count]}
        end += count
    header = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(end))


@pytest.mark.parametrize(
    "settings, packed",
    [
        ({"quant_method": "gptq", "bits": 4}, {"qweight": (2, 8), "qzeros": (1, 1), "scales": (1, 8), "g_idx": (16,)}),
        ({"quant_method": "awq", "bits": 4}, {"qweight": (16, 1), "qzeros": (1, 1), "scales": (1, 8)}),
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True},
            {"weight": (64, 1), "weight.absmax": (2,), "weight.quant_state.bitsandbytes__nf4": (80,)},
        ),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, {"weight": (8, 16), "SCB": (8,)}),
    ],
)
def test_packed_weights_count_as_what_they_stand_for(settings, packed):
    weights = {name: size for name, size in WEIGHTS.items() if "down_proj" not in name}
    weights |= {f"model.layers.0.mlp.down_proj.{part}": size for part, size in packed.items()}
    found = from_header("packed", LLAMA | {"quantization_config": settings}, weights)
    assert dict(found.weights) == dict(from_header("plain", LLAMA, WEIGHTS).weights)


@pytest.mark.parametrize(
    "config, said",
    [
        ({"quantization_config": {"quant_method": "hqq"}}, "quantised by hqq"),
        ({"num_local_experts": 8}, "experts"),
        ({"text_config": {}}, "several models"),
    ],
)
def test_a_model_whose_files_tell_too_little_is_said_to_be_unknown(config, said):
    with pytest.raises(ModelError, match=f"not known before it is loaded.*{said}"):
        from_header("other", LLAMA | config, WEIGHTS)


def test_a_packed_shape_that_the_config_does_not_tell_is_unknown():
    packed = {
        "model.layers.0.mlp.up.weight": (64, 1),
        "model.layers.0.mlp.up.weight.quant_state.bitsandbytes__nf4": (80,),
    }
    with pytest.raises(ModelError, match=r"shape of model\.layers\.0\.mlp\.up is packed away"):
        from_header("odd", LLAMA | {"quantization_config": {"quant_method": "bitsandbytes"}}, WEIGHTS | packed)


def test_a_model_that_is_not_here_is_told_so(studio_home, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NotHere, match="not on this machine yet"):
        shapes_of("somebody/something")


def test_the_bundled_model_s_known_shapes_are_those_of_its_folder(tmp_path, monkeypatch):
    from studio.engine.counting import bundled
    from studio.engine.models import bundled as place

    if not place.is_ready():
        pytest.skip("the bundled model is not on this machine")
    found = shapes_of("smollm2-135m-instruct")
    assert dict(found.weights) == dict(bundled.shapes().weights) and found.tied
    assert all(found.config[key] == value for key, value in bundled.CONFIG.items())
