"""A model of two layers by its shapes alone, small enough to add up by hand."""

import pytest

from studio.engine.counting.shapes import from_header

CONFIG = {
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "tie_word_embeddings": True,
}


def small():
    """H 64, queries 64, keys 32, I 128, 1000 words; 2 layers of 36,864 numbers in linear layers and 128 in norms."""
    layer = {
        "input_layernorm": (64,),
        "self_attn.q_proj": (64, 64),
        "self_attn.k_proj": (32, 64),
        "self_attn.v_proj": (32, 64),
        "self_attn.o_proj": (64, 64),
        "post_attention_layernorm": (64,),
        "mlp.gate_proj": (128, 64),
        "mlp.up_proj": (128, 64),
        "mlp.down_proj": (64, 128),
    }
    layers = {f"model.layers.{at}.{name}.weight": size for at in range(2) for name, size in layer.items()}
    return from_header("small", CONFIG, {"model.embed_tokens.weight": (1000, 64), **layers, "model.norm.weight": (64,)})


@pytest.fixture
def shapes():
    return small()
