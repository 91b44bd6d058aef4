"""The sections of a training run that are one of several kinds: the method and the stage. Not here: the kinds."""

from __future__ import annotations

from functools import cache
from typing import get_args

from studio.specs.section import Section
from studio.specs.sections import TrainSpec

UNIONS = tuple(name for name, info in TrainSpec.model_fields.items() if info.discriminator)
"""Their names, in the order of the spec."""


@cache
def kinds(section: str) -> dict[str, type[Section]]:
    """The classes of such a section by their kind, in the field's own order."""
    classes = get_args(TrainSpec.model_fields[section].annotation)
    return {get_args(each.model_fields["kind"].annotation)[0]: each for each in classes}


def described(kind: type[Section]) -> str:
    """What a kind is, in one line: the first of its docstring."""
    return (kind.__doc__ or "").strip().partition("\n")[0]
