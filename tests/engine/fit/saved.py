"""What autograd really keeps of a decoder layer. No test."""

from collections.abc import Callable
from typing import Any


def saved_in_second_layer(model: Any, forward: Callable[[], Any]) -> int:
    """Bytes of the storages that the second of two layers saves for the backward pass, without weights."""
    import torch

    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages: dict[int, tuple[bool, int, Any]] = {}
    inside: list[bool] = []
    decoder = model.get_base_model().model
    decoder.layers[1].register_forward_pre_hook(lambda *_: inside.append(True))
    decoder.norm.register_forward_pre_hook(lambda *_: inside.clear())

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and storage.data_ptr() not in storages:
            storages[storage.data_ptr()] = (bool(inside), storage.nbytes(), tensor)  # held, so that none is used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = forward()
    del kept
    return sum(size for within, size, _ in storages.values() if within)
