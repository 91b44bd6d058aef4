"""Write a conversation as text by a template, and mark which tokens of it are learned.

    library     find, load and check the files in templates/
    rendering   conversation -> text; what a stranger wrote is rendered in a process of its own (confined)
    checking    what is wrong with a template before it is used; twins finds a marked one that writes the same
    tokenizer   text -> tokens, and the model's own template
    talk        a conversation with its template and its tokenizer
    answers     where in the text the answers are
    encoding    conversation -> tokens, each learned or not, and why
    supervision which pieces of the text are learned, and why
    cutting     what goes where there are too many
    many        whole datasets, in processes beside this one

Not here: batches (studio.engine), and anything from transformers.
"""

from studio.templates.checking import concerns
from studio.templates.cutting import CUTS, Shortened, Truncation
from studio.templates.encoding import Encoded, Token, encode, generation_prompt, stop_tokens
from studio.templates.library import AUTO, every, load, names, parse, problems
from studio.templates.rendering import Template, render
from studio.templates.supervision import Policy, Reason, Role, Supervise
from studio.templates.tokenizer import TextTokenizer, own, resolve

__all__ = [
    "AUTO",
    "CUTS",
    "Encoded",
    "Policy",
    "Reason",
    "Role",
    "Shortened",
    "Supervise",
    "Template",
    "TextTokenizer",
    "Token",
    "Truncation",
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
