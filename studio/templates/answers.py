"""Where in the text of a conversation the answers are, each with the token that ends it.

Templates with generation marks say it themselves; of others it is found by comparing beginnings of the same
conversation, and proven for each row. Not here: which of the answers are learned (studio.templates.encoding).
"""

from __future__ import annotations

import re

from studio.errors import TemplateError
from studio.templates.quoting import Span
from studio.templates.talk import THOUGHT, Talk
from studio.templates.twins import near, twin


class NoEnd(TemplateError):
    """A template writes nothing after an answer at which the model could stop."""


def answers(talk: Talk, *, only_last: bool = False) -> list[Span]:
    """[start, end) in characters of each answer with its end token; only_last: of the last one alone.

    Raises: TemplateError: the template does not show where an answer is, or how it ends.
    """
    spans, turns = talk.whole.answers, talk.turns
    if not spans:
        return [_found_by_prefix(talk, turn) for turn in (turns[-1:] if only_last else turns)]
    if len(spans) != len(turns):
        raise TemplateError(
            f"Template '{talk.template.name}' marks {len(spans)} answers in a conversation that has {len(turns)}. "
            "Choose another template, or set template.supervise to all."
        )
    return [_with_end(talk, span) for span in (spans[-1:] if only_last else spans)]


def _found_by_prefix(talk: Talk, turn: int) -> Span:
    """Where an answer and its end token are in the text of a template without marks.

    What the model sees before it answers must be how the text begins: that is proven here for each answer, because
    some templates write earlier turns differently once later ones follow.
    """
    text = talk.whole.text
    prompt = talk.written(until=turn, prompt=True).text
    message = talk.messages[turn]
    if message.tool_calls and text.startswith(prompt):
        return len(prompt), _end_of_calls(talk, turn, len(prompt))
    content = message.content
    for said in (content, THOUGHT.sub("", content)) if "</think>" in content else (content,):
        answer = said.strip()
        place = text.find(answer, len(prompt)) if text.startswith(prompt) else -1
        # between the two may stand a thought, but not the end of another turn
        if place >= 0 and not any(each in text[len(prompt) : place] for each in _no_thoughts(talk)):
            end = place + len(answer)
            trailing = said[len(said.rstrip()) :]
            return len(prompt), _end_after(talk, end + len(trailing) * text.startswith(trailing, end))
    which = sum(message.role == "assistant" for message in talk.messages[: turn + 1])
    specials = talk.tokenizer.specials
    if alike := twin(talk.template, specials):
        hint = f"Choose template '{alike.name}', which writes the same text and has marks"
    elif alike := near(talk.template, specials):
        hint = f"Choose template '{alike.name}', which has marks and writes the same but for system texts"
    else:
        hint = "Choose a template with marks, such as chatml"
    raise TemplateError(
        f"Template '{talk.template.name}' has no generation marks, and answer {which} does not follow in the whole "
        f"conversation on what the model sees before it answers. {hint}, or set template.supervise to last or all."
    )


def _no_thoughts(talk: Talk) -> list[str]:
    """Special strings other than those around a thought, which some tokenizers have as special ones."""
    return [each for each in talk.tokenizer.special_strings if each not in ("<think>", "</think>")]


def _with_end(talk: Talk, span: Span) -> Span:
    """A marked span up to its end token, which may stand in it or right after it."""
    begin, end = span
    text, cited = talk.whole.text, talk.whole.cited
    written = begin + len(text[begin:end].rstrip())
    ends = (*talk.template.stop, *talk.tokenizer.special_strings)
    if text[begin:written].endswith(ends) and all(stop != written for _, stop in cited):
        return begin, written
    if talk.template.origin == "shipped" and _ends_a_turn_only(talk, end):
        return begin, end
    return begin, _end_after(talk, end)


def _ends_a_turn_only(talk: Talk, place: int) -> bool:
    """Whether a special token follows at which no model is stopped: so gpt-oss ends all but the last answer."""
    text = talk.whole.text
    follows = any(text.startswith(end, place) for end in talk.tokenizer.special_strings)
    return follows and not text.startswith(_ends(talk), place)


def _end_after(talk: Talk, place: int) -> int:
    """Where the end token ends that follows on an answer.

    Right after the answer any special token is one; after white space only one that is known to be, because the next
    turn may begin there.
    """
    text = talk.whole.text
    after_space = len(text) - len(text[place:].lstrip())
    found = [place + len(end) for end in talk.tokenizer.special_strings if text.startswith(end, place)]
    found += [after_space + len(end) for end in _ends(talk) if text.startswith(end, after_space)]
    if not found:
        raise _endless(talk)
    return found[0]


def _end_of_calls(talk: Talk, turn: int, begin: int) -> int:
    """Where the end token ends that follows on calls of tools, which each template writes in its own way.

    If it is none that ends answers too, it is the special token with which the next turn begins.
    """
    text, taken = talk.whole.text, {start for start, _ in talk.whole.cited}
    ends = [
        (found.start(), found.end())
        for end in _ends(talk)
        for found in re.finditer(re.escape(end), text[begin:])
        if begin + found.start() not in taken
    ]
    if ends:
        return begin + min(ends)[1]
    written = talk.written(until=turn + 1).text
    following = (each for each in talk.tokenizer.special_strings if text.startswith(each, len(written)))
    if not text.startswith(written) or (end := next(following, None)) is None:
        raise _endless(talk)
    return len(written) + len(end)


def _ends(talk: Talk) -> tuple[str, ...]:
    """Strings that are known to end an answer."""
    eos = talk.tokenizer.specials.get("eos_token", "")
    return tuple(end for end in (*talk.template.stop, eos) if end)


def _endless(talk: Talk) -> NoEnd:
    return NoEnd(
        f"Template '{talk.template.name}' writes no end token after an answer, so the model would not learn to stop. "
        "Choose another template, such as chatml, or set template.supervise to all."
    )
