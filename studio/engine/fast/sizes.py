"""How much the fast path takes at once. No torch here: the estimate of memory goes by the same numbers."""

TOKENS = {"cpu": 2048, "cuda": 16_384}
"""Tokens of a pass, at most, unless batch_size of the longest rows are more: larger ones fill the machine no better."""
CHUNK = 256
"""Supervised positions whose logits are there at once: 256 x V x 4 bytes, 50 MB for a vocabulary of 49,152."""
BLOCK = 8192
"""Words of the vocabulary whose exponentials, or weights in more bits than they are held in, are there at once."""
