"""Makes PEFT write the random matrices of RandLoRA once, as it writes those of VeRA.

PEFT (0.21) writes them again for each layer, which makes 2 GB of an adapter of 16 MB on a model of 135M parameters.
Plain PEFT loads what is written here, since all layers look at the same matrices. Not here: the method.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.randlora import RandLoraModel
from peft.utils import PeftType

_MATRICES = ("randlora_A", "randlora_B")


class SavedOnce(RandLoraModel):
    @classmethod
    def _get_adapter_state_dict(cls, *args: Any, **options: Any) -> dict[str, torch.Tensor]:
        found = super()._get_adapter_state_dict(*args, **options)
        return {name: tensor for name, tensor in found.items() if not _of_a_layer(name)}


def _of_a_layer(name: str) -> bool:
    return not name.startswith(tuple(f"base_model.{each}." for each in _MATRICES)) and any(
        f".{each}." in name for each in _MATRICES
    )


PEFT_TYPE_TO_TUNER_MAPPING[PeftType.RANDLORA] = SavedOnce
