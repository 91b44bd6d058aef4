"""How much the fast path takes at once. No torch here: the estimate of memory goes by the same numbers."""

TOKENS = {"cpu": 512, "cuda": 16_384}
"""Tokens of a pass, at most, unless a single row has more. Larger ones only take more memory: on a CPU with one thread,
SmolLM2-135M and 512, 1,024 and 2,048 tokens made 298, 293 and 301 tokens/s in 1.4, 1.6 and 2.2 GiB."""
CHUNK = {"cpu": 128, "cuda": 256}
"""Supervised positions whose logits are there at once: 128 x V x 4 bytes, 25 MB for a vocabulary of 49,152."""
BLOCK = 8192
"""Words of the vocabulary whose exponentials, or weights in more bits than they are held in, are there at once."""
