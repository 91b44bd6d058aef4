"""Norms and the activation of gated MLPs by Liger's kernels, on a GPU where that package is installed.

Not here: for which modules (layers), and whether it is used, which a contest decides (contest).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch


def is_here(device: torch.device) -> bool:
    """Whether there is any use in asking."""
    return device.type == "cuda" and find_spec("liger_kernel") is not None


def norm(x: torch.Tensor, weight: torch.Tensor, eps: float, *, unit: bool) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) * weight. unit: * (1 + weight), all of it in fp32, as Gemma has it."""
    from liger_kernel.ops.rms_norm import LigerRMSNormFunction

    offset, casting = (1.0, "gemma") if unit else (0.0, "llama")
    return LigerRMSNormFunction.apply(x, weight, eps, offset, casting, False)  # not in the place of the gradient


def gated_silu(gate: Any, up: Any) -> torch.Tensor:
    """silu(gate) * up. Overwrites both in the backward pass."""
    from liger_kernel.ops.swiglu import LigerSiLUMulFunction

    return LigerSiLUMulFunction.apply(gate, up)
