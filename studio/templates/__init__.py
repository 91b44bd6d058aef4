"""Write a conversation as text by a template, and mark which tokens of it are learned.

    library     find, load and check the files in templates/
    rendering   conversation -> text
    tokenizer   text -> tokens, and the model's own template
    encoding    conversation -> tokens, each learned or not

Not here: tools in conversations, batching and padding (studio.engine), and anything from transformers.
"""

from studio.templates.encoding import (
    Encoded,
    Supervise,
    Token,
    concerns,
    encode,
    generation_prompt,
    stop_tokens,
)
from studio.templates.library import AUTO, every, load, names, parse, problems
from studio.templates.rendering import Template, render
from studio.templates.tokenizer import TextTokenizer, own, resolve

__all__ = [
    "AUTO",
    "Encoded",
    "Supervise",
    "Template",
    "TextTokenizer",
    "Token",
    "concerns",
    "encode",
    "every",
    "generation_prompt",
    "load",
    "names",
    "own",
    "parse",
    "problems",
    "render",
    "resolve",
    "stop_tokens",
]
