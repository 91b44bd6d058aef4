"""What methods that train the embeddings of tokens share: which tokens, and a head that has them.

Not here: those methods.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer

from studio.engine.methods.tuning import Context
from studio.errors import Fault, SpecError


def single_tokens(texts: Sequence[str], context: Context) -> list[int]:
    """The token ids of texts that are one token each. Raises: SpecError: some are more, each named."""
    faults, ids = [], []
    for text in texts:
        pieces = context.token_ids(text)
        if len(pieces) == 1:
            ids += pieces
        else:
            said = f"'{text}' is {len(pieces)} tokens for {context.spec.model.name}"
            faults.append(Fault("method.train_tokens", f"{said}. Name texts that are one token."))
    if faults:
        raise SpecError(faults)
    return list(dict.fromkeys(ids))


class TokenHead:
    """A head whose weights are the embeddings, for those who ask for its weights: with the trained tokens in.

    trl (1.16) multiplies with `weight` itself, and refuses the layer that PEFT makes of such a head, because its
    `weight` is that of the base. The model itself goes on with PEFT's layer.
    """

    bias = None

    def __init__(self, layer: TrainableTokensLayer):
        self._layer = layer

    @property
    def weight(self) -> torch.Tensor:
        plain = self._layer.disable_adapters or self._layer.merged
        return self._layer.get_merged_weights([] if plain else self._layer.active_adapters)

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._layer(hidden)
