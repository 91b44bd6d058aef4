"""What a method adds to a model, in numbers. Not here: how many for which method (targeted, others)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Added:
    """Numbers that a method adds, trains and saves.

    new: parameters beside the base that train. fixed: those beside it that do not. own: the base's own that train.
    saved: numbers in the saved tensors. targets: the layers, or other parts, that it is put beside.
    """

    new: int = 0
    saved: int = 0
    fixed: int = 0
    own: int = 0
    targets: int = 0

    def __add__(self, other: Added) -> Added:
        return Added(
            self.new + other.new,
            self.saved + other.saved,
            self.fixed + other.fixed,
            self.own + other.own,
            self.targets + other.targets,
        )


def trained(new: int, targets: int = 0) -> Added:
    """Parameters that train and are all that is saved."""
    return Added(new=new, saved=new, targets=targets)
