"""An encoded conversation as plain values: what the command line prints as JSON and what the page copies, so that both
say the same. Not here: how either shows it (studio.cli.rendering, studio.ui.token_view)."""

from __future__ import annotations

from typing import Any

from studio.templates.encoding import Encoded, stop_tokens
from studio.templates.rendering import Template
from studio.templates.tokenizer import TextTokenizer


def facts(encoded: Encoded, template: Template, tokenizer: TextTokenizer) -> dict[str, Any]:
    """text; tokens: [{id, text, role, supervised, reason}]; stop: [{id, text}]; and how many were cut and escaped."""
    fields = ("id", "text", "role", "supervised", "reason")
    return {
        "template": template.name,
        "text": encoded.text,
        "tokens": [{field: getattr(token, field) for field in fields} for token in encoded.tokens],
        "stop": [{"id": each, "text": tokenizer.decode([each])} for each in stop_tokens(template, tokenizer)],
        "total": encoded.total,
        "learned": encoded.learns,
        "cut": encoded.cut,
        "escaped": encoded.escaped,
    }
