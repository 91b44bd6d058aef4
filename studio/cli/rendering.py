"""`studio templates render`: a conversation as text and as tokens, with what is learned of it and why.

Not here: how it is encoded (studio.templates.encoding), and rows of datasets (`studio data show --as-learned`).
"""

from __future__ import annotations

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from studio import specs
from studio.cli import output
from studio.errors import ModelError, TemplateError

if TYPE_CHECKING:
    from studio.data.example import Example
    from studio.templates import Encoded, Template, TextTokenizer, Token

_STYLES = {"system": "magenta", "user": "cyan", "assistant": "green", "tool": "yellow", "text": "green"}
_LINE_ENDS = str.maketrans({"\n": "↵", "\r": "␍", "\t": "→"})


def render(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A template; auto is the model's own.")],
    messages: Annotated[Path, typer.Option(metavar="FILE", help='A JSON file: [{"role": …, "content": …}, …].')],
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="With this model's tokens. Without: only the text.")
    ] = None,
    tools: Annotated[Path | None, typer.Option(metavar="FILE", help="A JSON file: a list of functions.")] = None,
    supervise: Annotated[Literal["assistant", "last", "all"], typer.Option(help="What is learned.")] = "assistant",
    no_learn_thoughts: Annotated[
        bool, typer.Option("--no-learn-thoughts", help="Not what stands between <think> and </think>.")
    ] = False,
    system: Annotated[str | None, typer.Option(help="For a conversation without a system text.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens that are kept. Without: all.", min=1)] = None,
    truncation: Annotated[
        Literal["cut_answer", "drop_turns", "cut_source", "drop_row"], typer.Option(help="What goes where it is more.")
    ] = "cut_answer",
    generation_prompt: Annotated[
        bool, typer.Option("--generation-prompt", help="End where the answer begins.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")] = False,
) -> None:
    """Write a conversation as the text and the tokens that a model reads, and mark what is learned."""
    from studio import templates
    from studio.templates.facts import facts

    example = _conversation(messages, tools)
    if model is None:
        text = _text_alone(name, example, system, generation_prompt)
        output.emit({"template": name, "text": text}) if as_json else output.line(text)
        return
    reader = tokenizer(model)
    template = templates.resolve(name, reader)
    if generation_prompt:
        encoded = _prompt(example, template, reader, system)
    else:
        policy = templates.Policy(
            supervise=supervise,
            learn_thoughts=not no_learn_thoughts,
            system=system,
            max_length=max_length,
            truncation=truncation,
        )
        encoded = templates.encode(example, template, reader, policy)
    found = facts(encoded, template, reader)
    if as_json:
        output.emit(found)
    else:
        _show(encoded, found["stop"])


def tokenizer(model: str) -> TextTokenizer:
    """The tokenizer of a model that lies on this machine. Raises: ModelError: it does not."""
    from studio.engine.models.tokenizer import tokenizer_of

    return tokenizer_of(model)


def resolved(name: str, reader: TextTokenizer | None) -> Template:
    """A template by its name; auto needs a model. Raises: TemplateError."""
    from studio import templates

    return templates.resolve(name, reader) if reader else templates.load(name)


def _text_alone(name: str, example: Example, system: str | None, generation_prompt: bool) -> str:
    """With the special tokens of the bundled model, where that is on this machine."""
    from studio import templates

    try:
        specials = tokenizer(specs.BUNDLED_MODEL).specials
    except ModelError:
        specials = None
    return templates.render(
        templates.load(name),
        example.messages,
        add_generation_prompt=generation_prompt,
        system=system,
        specials=specials,
        tools=example.tools,
    )


def _prompt(example: Example, template: Template, reader: TextTokenizer, system: str | None) -> Encoded:
    """What the model reads before it answers: nothing of it is learned."""
    from studio.templates import Encoded
    from studio.templates.rendering import with_system
    from studio.templates.talk import Talk

    talk = Talk(template, with_system(example.messages, system), example.tools, reader)
    text, _, cited = talk.written(prompt=True)
    ids, offsets = reader.encode(text, cited)
    reasons = {"assistant": "history", "tool": "result"}
    roles = [(talk.messages[turn].role, span) for turn, span in talk.contents if text.startswith(talk.whole.text)]
    parts = [(*span, role, reasons.get(role, "asked")) for role, span in roles]
    return Encoded(text, ids, offsets, [], [], len(ids), 0, escaped=len(cited), parts=parts)


def _conversation(path: Path, tools_path: Path | None) -> Example:
    """The messages in a JSON file, read as a row of a dataset is. Raises: TemplateError: it holds something else."""
    from studio.data import calls, turns
    from studio.data.example import Example, RowFault

    found = _json(path)
    tools = found.get("tools") if isinstance(found, dict) else None
    given = found.get("messages") if isinstance(found, dict) else found
    place = path
    try:
        messages = turns.turns(given, "messages", turns.words({}, "openai"))
        if tools_path:
            place, tools = tools_path, _json(tools_path)
        described = calls.tools({"tools": tools}, {"tools": "tools"})
    except RowFault as fault:
        raise TemplateError(f"{place}: {fault} {_SHAPE}") from fault
    if not messages:
        raise TemplateError(f"{path} holds no messages. {_SHAPE}")
    return Example(messages, tools=described)


_SHAPE = 'A conversation is a list such as [{"role": "user", "content": "Hello"}].'


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TemplateError(f"{path} cannot be read as JSON: {reason}.") from error


# --- What is printed ---


def _show(encoded: Encoded, stop: list[dict[str, Any]]) -> None:
    """The text, then a line for each run of tokens that are learned, or not, for the same reason."""
    from rich.console import Console
    from rich.text import Text

    output.line(encoded.text)
    output.line()
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    for (role, reason, learned), run in groupby(encoded.tokens, lambda each: (each.role, each.reason, each.supervised)):
        tokens = list(run)
        style = _STYLES.get(role, "dim")
        line = Text(f"{len(tokens):>5}  {'learned' if learned else '-':<7}  {role:<9}  {reason:<8}  ")
        line.append("|".join(map(_shown, tokens)), f"bold {style}" if learned else style)
        console.print(line)
    output.line()
    output.line(_counted(encoded))
    ends = ", ".join(f"{output.one_line(each['text'])} ({each['id']})" for each in stop)
    output.line(f"The model is stopped at: {ends}." if ends else "Nothing stops the model: it has no end token.")


def _shown(token: Token) -> str:
    return output.plain(token.text.translate(_LINE_ENDS))


def _counted(encoded: Encoded) -> str:
    said = f"{len(encoded.input_ids):,} tokens, of which {encoded.learns:,} are learned."
    if encoded.cut:
        said += f" Cut from {encoded.total:,} ({encoded.cut})."
    if encoded.escaped:
        said += f" Special tokens that somebody wrote, kept as text: {encoded.escaped:,}."
    return said
