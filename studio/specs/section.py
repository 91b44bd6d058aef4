"""What every part of a spec is: frozen, strict about names, with help under each field. Not here: any one field."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

FRONT = {"front": True}
"""Marks a field that stands in sight on the page; the others are folded."""


class Section(BaseModel):
    """A part of a spec. The docstring under a field is its help, on the page and in the shell.

    A class that only changes a field's default or limits keeps the help that the field has where it is first written.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, protected_namespaces=()
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        changed = False
        for name, info in cls.model_fields.items():
            if info.description is None and (told := cls._told_before(name)):
                info.description, changed = told, True
        if changed:
            cls.model_rebuild(force=True)

    @classmethod
    def _told_before(cls, name: str) -> str | None:
        kinds = (kind for kind in cls.__mro__[1:] if issubclass(kind, Section) and name in kind.model_fields)
        return next((told for kind in kinds if (told := kind.model_fields[name].description)), None)
