"""Texts that are one token each, for methods that train the embeddings of tokens. Not here: those methods."""

from __future__ import annotations

from collections.abc import Sequence

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
