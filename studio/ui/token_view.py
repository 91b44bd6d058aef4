"""An encoded conversation as markup: its text with what is learned marked, its tokens, or a table of them.

Pure; every piece of data is escaped here. What is learned is coloured and underlined, so that it shows without colour
too. Not here: encoding (studio.templates), and the widgets (studio.ui.tabs.template).
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from studio.templates import Encoded, TextTokenizer, Token
from studio.ui.texts import table

SHOWN_TOKENS = 2000
"""Of one conversation; a browser draws more only slowly."""

VIEWS = ("text", "tokens", "table")


@dataclass(frozen=True)
class Piece:
    """Characters that belong together, and the tokens that make them: several where a character takes more than one.

    cut: beyond the limit, so that no training sees it.
    """

    text: str
    tokens: tuple[Token, ...]
    special: bool
    cut: bool

    @property
    def learned(self) -> bool:
        return not self.cut and any(token.supervised for token in self.tokens)


def pieces(encoded: Encoded, special: Sequence[str], limit: int | None) -> list[Piece]:
    """The whole text in pieces, in order: nothing is lost and nothing shown twice. special: strings of such tokens."""
    found: list[Piece] = []
    place, names = 0, set(special)
    for number, token in enumerate(encoded.tokens):
        cut = limit is not None and number >= limit
        if token.end <= place and found:
            last = found[-1]
            found[-1] = Piece(last.text, (*last.tokens, token), last.special, last.cut)
            continue
        if token.start > place:
            found.append(Piece(encoded.text[place : token.start], (), False, cut))
        text = encoded.text[max(place, token.start) : token.end]
        found.append(Piece(text, (token,), text in names, cut))
        place = token.end
    if place < len(encoded.text):
        found.append(Piece(encoded.text[place:], (), False, limit is not None and len(encoded.input_ids) > limit))
    return found


def shown(encoded: Encoded, special: Sequence[str], limit: int | None, view: str, language: str) -> str:
    """The conversation in one of VIEWS."""
    words = table(language)
    parts = pieces(encoded, special, limit)
    few = list(_first(parts, SHOWN_TOKENS))
    body = {"text": _text, "tokens": _tokens, "table": _table}[view](few, words)
    more = len(encoded.input_ids) - sum(len(each.tokens) for each in few)
    rest = words["template.more"].format(shown=f"{SHOWN_TOKENS:,}", more=f"{more:,}") if more > 0 else ""
    return (
        f"<div class='conversation view-{view}' tabindex='0' role='region'"
        f" aria-label='{_said(words, 'template.conversation')}'>{body}</div>"
        f"<p class='quiet'>{html.escape(rest)}</p>"
    )


def counts(encoded: Encoded, limit: int | None, language: str) -> str:
    """`87 tokens, 23 of them learned, limit 512`, and what the limit does to this row."""
    words = table(language)
    total = len(encoded.input_ids)
    # the first position is never predicted
    learned = sum(encoded.supervised[1:limit])
    most = f"{limit:,}" if limit else "–"
    line = words["template.counts"].format(total=f"{total:,}", learned=f"{learned:,}", limit=most)
    notes = []
    if limit is not None and total > limit:
        notes.append(words["template.cut"].format(count=f"{total - limit:,}"))
    if not learned:
        notes.append(words["template.nothing_learned"])
    return f"<p class='counts' data-tokens='{total}' data-learned='{learned}'>{html.escape(line)}</p>" + "".join(
        f"<p class='note'>{html.escape(note)}</p>" for note in notes
    )


def stops(ids: Sequence[int], tokenizer: TextTokenizer, language: str) -> str:
    """Which tokens end an answer when the model writes one."""
    words = table(language)
    strings = [f"<code>{html.escape(tokenizer.decode([each]))}</code> ({each})" for each in ids]
    told = _said(words, "template.stops") if strings else _said(words, "template.no_stops")
    return f"<p class='quiet stops'>{told} {html.escape(words['train.and']).join(strings)}</p>"


def legend(language: str) -> str:
    """What the marks mean."""
    words = table(language)
    marks = (("learned", "learned"), ("special", "special"), ("cut", "beyond"))
    shown = "".join(f"<span class='piece {kind}'>{_said(words, f'template.{key}')}</span>" for kind, key in marks)
    return f"<p class='quiet legend'>{shown}</p>"


def notes(sentences: Sequence[str]) -> str:
    """What does not fit, one line each."""
    return "".join(f"<p class='note'>{html.escape(each)}</p>" for each in sentences)


# --- the three views


def _text(parts: Sequence[Piece], words: Mapping[str, str]) -> str:
    """Neighbours that look alike are one span, so that an answer reads as one."""
    return "".join(
        _span(kinds, "".join(each.text for each in alike), "") for kinds, alike in groupby(parts, key=_kinds)
    )


def _tokens(parts: Sequence[Piece], words: Mapping[str, str]) -> str:
    return "".join(_span(f"token {_kinds(each)}", each.text, _title(each, words)) for each in parts)


def _table(parts: Sequence[Piece], words: Mapping[str, str]) -> str:
    heads = ("number", "id", "characters", "is_learned")
    head = "".join(f"<th scope='col'>{_said(words, f'template.{key}')}</th>" for key in heads)
    rows, number = [], 0
    for each in parts:
        for place, token in enumerate(each.tokens):
            number += 1
            # the bytes of one character are spread over several tokens: the first of them shows it
            text = _span(_kinds(each), each.text, "") if place == 0 else "″"
            learned = _said(words, "template.yes") if each.learned and token.supervised else "–"
            rows.append(f"<tr><td>{number:,}</td><td>{token.id}</td><td>{text}</td><td>{learned}</td></tr>")
    return f"<table class='figures-table token-table'><tr>{head}</tr>{''.join(rows)}</table>"


def _span(kinds: str, text: str, title: str) -> str:
    about = f" title='{html.escape(title)}'" if title else ""
    return f"<span class='piece {kinds}'{about}>{_visible(text)}</span>"


def _visible(text: str) -> str:
    """Escaped, with a sign before each line break and tab. The style sheet draws the signs, so a copy lacks them."""
    escaped = html.escape(text)
    return escaped.replace("\n", "<span class='break'></span>\n").replace("\t", "<span class='tab'></span>\t")


def _kinds(piece: Piece) -> str:
    marks = {"learned": piece.learned, "special": piece.special, "cut": piece.cut}
    return " ".join(name for name, there in marks.items() if there)


def _title(piece: Piece, words: Mapping[str, str]) -> str:
    ids = " + ".join(str(token.id) for token in piece.tokens)
    return " · ".join(filter(None, (ids, words["template.learned"] if piece.learned else "")))


def _first(parts: Sequence[Piece], tokens: int) -> Iterator[Piece]:
    count = 0
    for each in parts:
        count += len(each.tokens)
        if count > tokens:
            return
        yield each


def _said(words: Mapping[str, str], key: str) -> str:
    return html.escape(words[key])
