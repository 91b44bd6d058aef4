"""What other programs write for the same conversations: published renderings, trl's templates, published layouts.

Not here: which shipped template is compared with which of them (families).
"""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from studio.data.example import Message
from studio.errors import TemplateError
from studio.templates import Template
from studio.templates.rendering import as_values, parsed_tools, render_marked
from tests.templates.conversations import CONVERSATIONS

SHARED = Path(__file__).resolve().parents[3] / "shared" / "templates"
REFUSED = "refused"
"""Stands for the text of a conversation that is refused."""


class Case(NamedTuple):
    """A conversation, and what a reference writes for it."""

    conversation: str
    messages: tuple[Message, ...]
    tools: str
    prompt: bool
    text: str


@dataclass(frozen=True)
class Published:
    """Renderings of a published template, recorded in the shared folder.

    source: as it is named there. differs: conversations for which ours differs on purpose, and why; "name+prompt" is
    only the one with the generation prompt, "name-prompt" only the one without.
    """

    source: str
    differs: Mapping[str, str] = field(default_factory=dict)

    @property
    def words(self) -> str:
        return f"recorded renderings of {self.source}"

    def cases(self, specials: Mapping[str, str]) -> Iterator[Case]:
        """Nothing where the shared folder is not beside the checkout."""
        for row in _recorded():
            if row["source"] == self.source:
                messages = tuple(Message(**message) for message in row["messages"])
                tools = json.dumps(row["tools"]) if row["tools"] else ""
                name = f"{row['conv']}{'_tools' if tools else ''}"
                yield Case(name, messages, tools, row["add_generation_prompt"], row.get("text", REFUSED))


@dataclass(frozen=True)
class Trl:
    """A published template that trl has a copy of, rendered now.

    arguments_as_text: it expects a call's arguments as text. values: further names that it finds.
    """

    file: str
    differs: Mapping[str, str] = field(default_factory=dict)
    arguments_as_text: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def words(self) -> str:
        return f"trl's copy of the published template, {self.file}.jinja"

    def cases(self, specials: Mapping[str, str]) -> Iterator[Case]:
        if not (source := self._source()):
            return
        template = Template(self.file, source, origin="shipped")  # rendered in this process
        for each in CONVERSATIONS:
            for prompt in (False, True):
                messages = each.asked if prompt else each.messages
                values = as_values(messages)
                if self.arguments_as_text:
                    _arguments_to_text(values)
                try:
                    text = render_marked(
                        template,
                        values,
                        {**specials, **self.values},
                        prompt=prompt,
                        tools=parsed_tools(each.tools),
                    )
                except TemplateError:
                    text = REFUSED
                yield Case(each.name, messages, each.tools, prompt, text)

    def _source(self) -> str:
        return (_folder("trl") / "chat_templates" / f"{self.file}.jinja").read_text("utf-8")


@dataclass(frozen=True)
class Own(Trl):
    """A tokenizer's own template, from the shared folder, rendered now. file: the tokenizer's folder."""

    @property
    def words(self) -> str:
        return f"{self.file}'s own template"

    def _source(self) -> str:
        """Nothing where the shared folder is not beside the checkout."""
        path = SHARED / "tokenizers" / self.file / "tokenizer_config.json"
        return json.loads(path.read_text("utf-8"))["chat_template"] if path.is_file() else ""


@dataclass(frozen=True)
class Processor(Trl):
    """A template that stands in the code of a transformers processor. file: the model's folder there."""

    @property
    def words(self) -> str:
        return f"the template in transformers' processor of {self.file}"

    def _source(self) -> str:
        code = (_folder("transformers") / "models" / self.file / f"processing_{self.file}.py").read_text("utf-8")
        assigned = (node for node in ast.parse(code).body if isinstance(node, ast.Assign))
        named = (node for node in assigned if getattr(node.targets[0], "id", "") == "chat_template")
        return ast.literal_eval(next(named).value)


@dataclass(frozen=True)
class Layout:
    """How a family writes each turn, as its paper, model card or code says; `{}` is the content.

    answer: with its end. prompt: what opens an answer. default: the system text where the conversation has none.
    first: the first turn of the user together with a `{system}` text, where they are one. last: the answer that ends a
    conversation, where it differs. trims: roles whose contents lose the spaces around them. by: who published it.
    Only conversations without tools are written.
    """

    by: str
    user: str
    answer: str
    start: str = ""
    system: str = "{}"
    default: str | None = None
    prompt: str = ""
    first: str = ""
    last: str = ""
    trims: tuple[str, ...] = ()
    differs: Mapping[str, str] = field(default_factory=dict)

    @property
    def words(self) -> str:
        return f"the layout of {self.by}"

    def cases(self, specials: Mapping[str, str]) -> Iterator[Case]:
        for each in CONVERSATIONS:
            for prompt in (False, True) if not each.tools else ():
                messages = each.asked if prompt else each.messages
                text = self._text(messages) + (self.prompt if prompt else "")
                yield Case(each.name, messages, "", prompt, text)

    def _text(self, messages: tuple[Message, ...]) -> str:
        text = self.start
        if messages[0].role != "system" and self.default is not None:
            text += self.system.replace("{}", self.default)
        ways = {"system": self.system, "user": self.user, "assistant": self.answer}
        asked = 0
        for place, message in enumerate(messages):
            if message.role == "system" and self.first:
                continue
            asked += message.role == "user"
            way = ways[message.role].replace("{round}", str(asked))
            if self.first and messages[0].role == "system" and place == 1:
                way = self.first.replace("{system}", messages[0].content)
            elif self.last and message is messages[-1] and message.role == "assistant":
                way = self.last
            text += way.replace("{}", message.content.strip() if message.role in self.trims else message.content)
        return text


Reference = Published | Trl | Own | Processor | Layout

CHATML = {
    "system": "<|im_start|>system\n{}<|im_end|>\n",
    "user": "<|im_start|>user\n{}<|im_end|>\n",
    "answer": "<|im_start|>assistant\n{}<|im_end|>\n",
    "prompt": "<|im_start|>assistant\n",
}


@dataclass(frozen=True)
class Family:
    """bos, eos: its special tokens; empty where it has none. unverified: what no reference here covers."""

    references: tuple[Reference, ...]
    eos: str = "</s>"
    bos: str = ""
    unverified: str = ""

    @property
    def specials(self) -> dict[str, str]:
        return {name: value for name, value in (("bos_token", self.bos), ("eos_token", self.eos)) if value}

    @property
    def words(self) -> str:
        """What the golden file was compared with."""
        return "; ".join([each.words for each in self.references] or ["nothing: " + self.unverified])


def on_purpose(reference: Reference, case: Case) -> str:
    """Why ours differs from the reference in a case; empty where it must not."""
    named = (case.conversation, f"{case.conversation}{'+' if case.prompt else '-'}prompt")
    every = f"*{'+' if case.prompt else '-'}prompt"
    return next((reference.differs[name] for name in (*named, every, "*") if name in reference.differs), "")


@cache
def _recorded() -> list[dict[str, Any]]:
    path = SHARED / "expected.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


@cache
def _folder(package: str) -> Path:
    """Found without importing the package, which takes seconds."""
    found = importlib.util.find_spec(package)
    assert found is not None and found.origin is not None, f"{package} is not installed"
    return Path(found.origin).parent


def _arguments_to_text(values: list[dict[str, Any]]) -> None:
    for call in (call for value in values for call in value.get("tool_calls", ())):
        call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
