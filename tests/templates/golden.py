"""The golden files: what each shipped template writes for each conversation, and refuses.

`python -m tests.templates.golden NAME ...` compares with the references that families names, shows every difference
that is not on purpose, and writes tests/templates/golden/NAME.json if there is none. Not here: the tests.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from studio import templates
from studio.errors import TemplateError
from studio.templates import Template, tools
from tests.templates.conversations import CONVERSATIONS, Conversation
from tests.templates.families import FAMILIES
from tests.templates.references import REFUSED, Case, Family, Reference, on_purpose

FOLDER = Path(__file__).parent / "golden"


def written(template: Template, conversation: Conversation, specials: Mapping[str, str], *, prompt: bool) -> dict:
    """{"text": ...} or {"refused": why}."""
    messages = conversation.asked if prompt else conversation.messages
    places = tools.places(template, tuple(sorted(specials.items())))
    if lacking := [place for place in tools.needed(messages, conversation.tools) if place not in places]:
        return {"refused": f"no place for {' and '.join(lacking)}"}
    try:
        text = templates.render(
            template, messages, add_generation_prompt=prompt, specials=specials, tools=conversation.tools
        )
    except TemplateError as error:
        return {"refused": str(error)}
    return {"text": text}


def cases(template: Template, specials: Mapping[str, str]) -> list[dict[str, Any]]:
    """All conversations, each whole and up to its last answer with the generation prompt."""
    return [
        {"conv": each.name, "prompt": prompt, **written(template, each, specials, prompt=prompt)}
        for each in CONVERSATIONS
        for prompt in (False, True)
    ]


class Difference(NamedTuple):
    """ours: what we write for the case of a reference. reason: why it differs on purpose; empty if it must not."""

    case: Case
    ours: str
    reason: str

    @property
    def shown(self) -> str:
        place = f"{self.case.conversation} prompt={self.case.prompt}"
        return f"  {place}\n    ours   {self.ours!r}\n    theirs {self.case.text!r}"


def differences(name: str, specials: Mapping[str, str], reference: Reference) -> Iterator[Difference]:
    """Where a template and a reference differ."""
    template = templates.load(name)
    for case in reference.cases(specials):
        ours = written_case(template, case, specials)
        if ours != case.text:
            yield Difference(case, ours, on_purpose(reference, case))


def compared(name: str, family: Family) -> Iterator[str]:
    """A line for each reference, and the differences from it that are not on purpose."""
    for reference in family.references:
        found = list(differences(name, family.specials, reference))
        unexpected = [each.shown for each in found if not each.reason]
        total = sum(1 for _ in reference.cases(family.specials))
        yield f"{name}: {total - len(found)} of {total} equal to {reference.words}; {len(unexpected)} unexpected"
        yield from unexpected


def written_case(template: Template, case: Case, specials: Mapping[str, str]) -> str:
    """What ours writes for a reference's case. Tools are not checked: a reference may drop them without a word."""
    try:
        return templates.render(
            template, case.messages, add_generation_prompt=case.prompt, specials=specials, tools=case.tools
        )
    except TemplateError:
        return REFUSED


def read(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def main(names: list[str]) -> int:
    failed = False
    for name in names or sorted(FAMILIES):
        lines = list(compared(name, FAMILIES[name]))
        print("\n".join(lines or [f"{name}: no reference"]))
        if any(line.startswith("  ") for line in lines):
            failed = True
            continue
        family = FAMILIES[name]
        content = {
            "specials": family.specials,
            "reference": family.words,
            "cases": cases(templates.load(name), family.specials),
        }
        FOLDER.mkdir(exist_ok=True)
        text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
        path = FOLDER / f"{name}.json"
        if names or not path.is_file():
            path.write_text(text, encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
