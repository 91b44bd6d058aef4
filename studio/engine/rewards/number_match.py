"""1 where the last number of the answer is the last number of the reference, else 0, as arithmetic is marked.

GSM8K, whose references end with `#### 18`, is scored so (Cobbe et al., arXiv:2110.14168, section 2).
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

_NUMBER = re.compile(r"[-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")


def number_match(*, completions: list[str], reference: list[str], **_: Any) -> list[float | None]:
    """None where the reference holds no number."""
    return [_score(answer, wanted) for answer, wanted in zip(completions, reference, strict=True)]


def _score(answer: str, wanted: str) -> float | None:
    number = last_number(wanted)
    return None if number is None else float(last_number(answer) == number)


def last_number(text: str) -> Decimal | None:
    """The last number in a text: 1,234.50 and 1234.5 are the same. None: there is none."""
    found = _NUMBER.findall(text[-2000:])
    return Decimal(found[-1].replace(",", "").replace("−", "-")) if found else None
