"""Everything that can go wrong, as one tree.

    StudioError                 text a user can act on; the page and the shell show it as it is
    ├── SpecError               wrong fields of a spec, all of them together
    ├── DataError               a dataset that cannot be read, mapped or registered
    ├── TemplateError           a template that cannot be loaded or rendered
    ├── ModelError              a model, tokenizer or adapter that cannot be found or loaded
    ├── JobError                a job that cannot be started, stopped, resumed or found
    ├── Diverged                a training run whose numbers are no longer finite
    ├── OutOfMemory             a run that no longer fits, whatever it gives up
    ├── ExportError             an export that cannot be written or proven
    ├── ServingError            a chat server that cannot be started or reached
    └── MissingExtra            an optional package that is not installed

Anything else that is raised is a bug: it is logged whole, and shown as one line with the log's place.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


class StudioError(Exception):
    """Something went wrong that the user can act on; the text says what, where, and what to do."""


@dataclass(frozen=True)
class Fault:
    """One wrong field: its dotted path, such as `training.learning_rate`, and what is wrong and what to do."""

    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}"


class SpecError(StudioError):
    """One or more fields of a spec are wrong; `faults` lists every one of them."""

    def __init__(self, faults: Iterable[Fault]):
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class DataError(StudioError):
    """A dataset cannot be read, mapped or registered."""


class TemplateError(StudioError):
    """A template cannot be loaded or rendered."""


class ModelError(StudioError):
    """A model, tokenizer or adapter cannot be found or loaded."""


class JobError(StudioError):
    """A job cannot be started, stopped, resumed or found."""


class Diverged(StudioError):
    """The loss, a gradient or a weight of a training run is no longer a finite number."""


class OutOfMemory(StudioError):
    """A run does not fit into memory, and there is nothing left that it could do without."""


class ExportError(StudioError):
    """An export cannot be written or proven."""


class ServingError(StudioError):
    """A chat server cannot be started or reached."""


class MissingExtra(StudioError):
    """An optional package is not installed."""

    def __init__(self, package: str, purpose: str, extra: str | None = None):
        install = f"pip install 'finetune-studio[{extra}]'" if extra else f"pip install {package}"
        super().__init__(f"{purpose} needs the package {package}, which is not installed. Run: {install}")


def unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """The text for a name that does not exist: `Unknown template 'alpacca'. Did you mean 'alpaca'?`"""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(names[:12]) or 'none'}."
    return f"Unknown {kind} '{word}'. {hint}"
