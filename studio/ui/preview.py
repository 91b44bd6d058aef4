"""One row of a dataset as a model would be trained on it: found, read, written by a template, tokenized, cut.

Nothing heavy is imported, and nothing is downloaded. Not here: how it looks (studio.ui.token_view).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache

from studio import templates
from studio.data import registry
from studio.data.example import BadRow, Example
from studio.data.learning import learning, sft
from studio.engine.models.tokenizer import NotHere
from studio.engine.models.tokenizer import tokenizer_of as tokenizer
from studio.errors import DataError
from studio.templates import Encoded, Policy, Template, TextTokenizer
from studio.templates.checking import Finding, check
from studio.templates.facts import facts

__all__ = ["NotHere", "Written", "as_json", "example", "findings", "tokenizer", "written"]


@dataclass(frozen=True)
class Written:
    """An example as text and tokens. whole: before it is cut. kept: what is trained on; where it fits the same."""

    whole: Encoded
    kept: Encoded
    template: Template
    tokenizer: TextTokenizer


def example(dataset: str, row: int) -> tuple[Example, int]:
    """What is learned from a row, counted from 1, and how many rows the dataset has.

    Raises: DataError: there is no such dataset or row, or nothing is learned from it.
    """
    found = registry.get(dataset)
    rows = registry.rows(found, row - 1, 1)
    if not rows:
        raise DataError(f"Dataset '{dataset}' has no row {row}; its last is {found.rows}.")
    outcome = registry.example(rows[0], found.how)
    if isinstance(outcome, BadRow):
        raise DataError(f"{dataset}, {str(outcome)[:1].lower()}{str(outcome)[1:]} It is never trained on.")
    if outcome is None:
        raise DataError(f"Dataset '{dataset}' has no format. Remove and add it again.")
    learned = sft(outcome)
    if learned is None:
        raise DataError(
            f"{dataset}, row {row} {learning('sft').unlearned[outcome.kind].one}, so nothing is learned from it."
        )
    return learned, found.rows


def written(one: Example, template: Template, reader: TextTokenizer, policy: Policy) -> Written:
    """The example as a run with this policy would learn it. Raises: TemplateError: what stands in the way."""
    whole = templates.encode(one, template, reader, replace(policy, max_length=None))
    fits = policy.max_length is None or whole.total <= policy.max_length
    return Written(whole, whole if fits else templates.encode(one, template, reader, policy), template, reader)


@lru_cache(maxsize=8)
def findings(template: Template, reader: TextTokenizer) -> tuple[Finding, ...]:
    """What is wrong with a template for a model. Kept, because the row changes more often than either."""
    return tuple(check(template, reader))


def as_json(found: Written) -> str:
    """What is trained on of the row, as `studio templates render --json` prints it."""
    return json.dumps(facts(found.kept, found.template, found.tokenizer), ensure_ascii=False)
