"""The shapes of the bundled model, so that a first start can count before it is there. Not here: fetching it."""

from __future__ import annotations

from functools import cache

from studio.engine.counting.shapes import Shapes, from_header
from studio.specs import BUNDLED_MODEL

CONFIG = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
    "dtype": "bfloat16",
}

_IN_EACH_LAYER = {
    "input_layernorm": (576,),
    "self_attn.q_proj": (576, 576),
    "self_attn.k_proj": (192, 576),
    "self_attn.v_proj": (192, 576),
    "self_attn.o_proj": (576, 576),
    "post_attention_layernorm": (576,),
    "mlp.gate_proj": (1536, 576),
    "mlp.up_proj": (1536, 576),
    "mlp.down_proj": (576, 1536),
}


@cache
def shapes() -> Shapes:
    layers = {
        f"model.layers.{number}.{name}.weight": size for number in range(30) for name, size in _IN_EACH_LAYER.items()
    }
    weights = {"model.embed_tokens.weight": (49152, 576), **layers, "model.norm.weight": (576,)}
    return from_header(BUNDLED_MODEL, CONFIG, weights)
