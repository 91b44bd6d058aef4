"""An encoded conversation as markup: its text with whose it is and what is learned, its tokens, or a table of them.

Pure; every piece of data is escaped here. Whose a piece is shows as a colour and as a word before it, what is learned
as a line under it, so that both can be read without colour. Not here: encoding (studio.templates), what two templates
have in common (studio.ui.token_compare), and the widgets (studio.ui.tabs.template).
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

from studio.templates import Encoded, TextTokenizer, Token
from studio.templates.checking import Finding
from studio.ui.preview import Written
from studio.ui.texts import table

SHOWN_TOKENS = 3000
"""Of one conversation; a browser draws more only slowly."""
SHOWN_CHARACTERS = 60_000
"""Of one conversation: of a long text of which no token is kept, or of very long tokens."""

VIEWS = ("text", "tokens", "table")
ROLES = ("system", "user", "assistant", "tool", "text", "template")

POINT = """const told = (piece) => {
  const line = piece.closest(".pane")?.querySelector(".pointed");
  if (line) line.textContent = piece.title || line.dataset.empty;
};
for (const kind of ["mouseover", "focusin", "click"])
  element.addEventListener(kind, (event) => {
    const piece = event.target.closest?.(".piece[title]");
    if (piece) told(piece);
  });
element.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const region = event.target.closest?.(".conversation");
  if (!step || !region) return;
  const pieces = [...region.querySelectorAll(".piece[title]")];
  const now = pieces.indexOf(event.target.closest(".piece"));
  const next = now < 0 ? pieces[0] : pieces[now + step];
  if (!next) return;
  event.preventDefault();
  next.tabIndex = -1;
  next.focus();
});"""
"""In the browser: the line below the conversation tells of the token under the pointer, or of that with the focus."""


@dataclass(frozen=True)
class Piece:
    """Characters that belong together, and the tokens that make them: several where a character takes more than one.

    cut: no training sees it.
    """

    text: str
    tokens: tuple[Token, ...]
    special: bool
    cut: bool

    @property
    def learned(self) -> bool:
        return not self.cut and any(token.supervised for token in self.tokens)

    @property
    def about(self) -> tuple[str, str]:
        """Whose it is and why it is learned or not; of what no token stands for, nothing."""
        return (self.tokens[0].role, self.tokens[0].reason) if self.tokens else ("", "")


def pieces(found: Written) -> Iterator[Piece]:
    """The whole text in pieces, in order: nothing is lost and nothing shown twice."""
    whole, names = _marked(found), set(found.tokenizer.special_strings)
    text, place, held = _of(found).text, 0, None
    for token, cut in whole:
        if token.end <= place and held is not None:
            held = Piece(held.text, (*held.tokens, token), held.special, held.cut)
            continue
        if held is not None:
            yield held
        if token.start > place:
            yield Piece(text[place : token.start], (), False, cut)
        told = text[max(place, token.start) : token.end]
        held = Piece(told, (token,), told in names, cut)
        place = token.end
    if held is not None:
        yield held
    if place < len(text):
        yield Piece(text[place:], (), False, found.kept.truncated)


def pane(found: Written, view: str, language: str, *, title: str = "") -> str:
    """Counts, then the conversation in one of VIEWS. title: of the template, where there are two."""
    words = table(language)
    return _pane(f"{counts(found, language)}{conversation(found, view, language)}", title, words)


def refused(reason: str, language: str, *, title: str = "") -> str:
    """The same for a template that cannot write the row."""
    told = f"<div class='problem' role='alert'>{html.escape(reason)}</div>"
    return _pane(f"<div class='conversation'>{told}</div>", title, table(language))


def conversation(found: Written, view: str, language: str) -> str:
    """The first SHOWN_TOKENS of it, and a line that tells of the one that is pointed at."""
    words = table(language)
    few = list(_first(pieces(found)))
    body = {"text": _text, "tokens": _tokens, "table": _table}[view](few, words)
    more = len(_of(found).input_ids) - sum(len(each.tokens) for each in few)
    rest = words["template.more"].format(shown=f"{SHOWN_TOKENS:,}", more=f"{more:,}") if more > 0 else ""
    hint = "" if view == "table" else _said(words, "template.point")
    return (
        f"<div class='conversation view-{view}' tabindex='0' role='region'"
        f" aria-label='{_said(words, 'template.conversation')}'>{body}</div>"
        f"<p class='quiet pointed' aria-live='polite' data-empty='{hint}'>{hint}</p>"
        + (f"<p class='quiet'>{html.escape(rest)}</p>" if rest else "")
    )


def counts(found: Written, language: str) -> str:
    """How many tokens there are, whose they are, how many are learned, and what was cut: figures and a sentence."""
    words, kept = table(language), found.kept
    number = len(kept.input_ids)
    share = f" ({kept.learns / number:.0%})" if number else ""
    by_role = Counter(token.role for token in kept.tokens)
    whose = " · ".join(f"{words[f'template.role.{role}']} {by_role[role]:,}" for role in ROLES if by_role[role])
    figures = {
        "tokens": f"{number:,}",
        "learned_count": f"{kept.learns:,}{share}",
        "cut_count": f"{kept.total - number:,}",
        "escaped": f"{kept.escaped:,}",
        "whose": whose or "–",
    }
    cells = "".join(
        f"<div class='{key}'><dt>{_said(words, f'template.{key}')}</dt><dd>{html.escape(value)}</dd></div>"
        for key, value in figures.items()
    )
    told = "".join(f"<p class='note'>{html.escape(each)}</p>" for each in _losses(kept, words))
    return (
        f"<dl class='figures counts' data-tokens='{number}' data-learned='{kept.learns}'"
        f" data-total='{kept.total}'>{cells}</dl>{told}"
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
    marks = (
        *((f"role-{role}", f"role.{role}") for role in ROLES if role != "text"),
        ("learned", "learned"), ("special", "special"), ("cut", "beyond"),
    )  # fmt: skip
    shown = "".join(f"<span class='piece {kind}'>{_said(words, f'template.{key}')}</span>" for kind, key in marks)
    return f"<p class='quiet legend'>{shown}</p>"


def findings(found: Sequence[Finding], language: str) -> str:
    """What is wrong with a template, the worst first: an error begins with a word that says so."""
    words = table(language)
    worst_first = sorted(found, key=lambda each: each.level != "error")
    return "".join(
        f"<p class='note finding {html.escape(each.level)}'>"
        + (f"<strong>{_said(words, 'template.error')}</strong> " if each.level == "error" else "")
        + f"{html.escape(each.text)}</p>"
        for each in worst_first
    )


def notes(sentences: Sequence[str]) -> str:
    """One line each."""
    return "".join(f"<p class='note'>{html.escape(each)}</p>" for each in sentences)


# --- what is shown of an example


def _of(found: Written) -> Encoded:
    """The whole example, unless its oldest turns were left out: then that is another text."""
    return found.whole if found.kept.text == found.whole.text else found.kept


def _marked(found: Written) -> Iterator[tuple[Token, bool]]:
    """The tokens, each with whether it was cut away. Those that are kept stand in the same order as before."""
    shown, kept = _of(found), found.kept
    if len(shown.input_ids) == len(kept.input_ids):
        yield from ((token, False) for token in shown.tokens)
        return
    # from both ends inwards would not do: the middles of several texts may be gone
    waiting = zip(kept.input_ids, kept.offsets, strict=True)
    expected = next(waiting, None)
    for token in shown.tokens:
        here = expected == (token.id, (token.start, token.end))
        yield token, not here
        if here:
            expected = next(waiting, None)


def _first(parts: Iterator[Piece]) -> Iterator[Piece]:
    tokens, characters = 0, 0
    for each in parts:
        tokens += len(each.tokens)
        if tokens > SHOWN_TOKENS or characters > SHOWN_CHARACTERS:
            return
        characters += len(each.text)
        yield each if len(each.text) <= SHOWN_CHARACTERS else _shortened(each)


def _shortened(piece: Piece) -> Piece:
    return Piece("".join(islice(piece.text, SHOWN_CHARACTERS)) + "…", piece.tokens, piece.special, piece.cut)


def _losses(kept: Encoded, words: Mapping[str, str]) -> Iterator[str]:
    if kept.cut:
        away = kept.total - len(kept.input_ids)
        yield words[f"template.cut.{kept.cut}"].format(count=f"{away:,}", total=f"{kept.total:,}")
    if not kept.learns:
        yield words["template.nothing_learned"]


def _pane(body: str, title: str, words: Mapping[str, str]) -> str:
    head = f"<h3 class='pane-title'>{html.escape(title)}</h3>" if title else ""
    return f"<section class='pane'>{head}{body}</section>"


# --- the three views


def _text(parts: Sequence[Piece], words: Mapping[str, str]) -> str:
    """Neighbours that look alike are one span, so that an answer reads as one."""
    shown, before = [], ""
    for (kinds, (role, reason)), group in groupby(parts, key=lambda each: (_kinds(each), each.about)):
        alike = list(group)
        label = _label(role, reason, words)
        title = _title(role, reason, alike, words)
        shown.append(_span(kinds, "".join(each.text for each in alike), title, label if label != before else ""))
        before = label
    return "".join(shown)


def _tokens(parts: Sequence[Piece], words: Mapping[str, str]) -> str:
    shown, before = [], ""
    for each in parts:
        label = _label(*each.about, words)
        title = _title(*each.about, [each], words)
        shown.append(_span(f"token {_kinds(each)}", each.text, title, label if label != before else ""))
        before = label
    return "".join(shown)


def _table(parts: Sequence[Piece], words: Mapping[str, str]) -> str:
    heads = ("number", "id", "characters", "whose_one", "why", "is_learned")
    head = "".join(f"<th scope='col'>{_said(words, f'template.{key}')}</th>" for key in heads)
    rows, number = [], 0
    for each in parts:
        for place, token in enumerate(each.tokens):
            number += 1
            # the bytes of one character are spread over several tokens: the first of them shows it
            text = _span(_kinds(each), each.text, "", "") if place == 0 else "″"
            learned = _said(words, "template.yes") if token.supervised and not each.cut else "–"
            why = _said(words, f"template.reason.{'cut' if each.cut else token.reason}")
            rows.append(
                f"<tr><td>{number:,}</td><td>{token.id}</td><td>{text}</td>"
                f"<td>{_said(words, f'template.role.{token.role}')}</td><td>{why}</td><td>{learned}</td></tr>"
            )
    return f"<table class='figures-table token-table'><tr>{head}</tr>{''.join(rows)}</table>"


def _span(kinds: str, text: str, title: str, label: str) -> str:
    about = f" title='{html.escape(title)}'" if title else ""
    said = f" data-label='{html.escape(label)}'" if label else ""
    return f"<span class='piece {kinds}'{about}{said}>{_visible(text)}</span>"


def _visible(text: str) -> str:
    """Escaped, with a sign before each line break and tab. The style sheet draws the signs, so a copy lacks them."""
    escaped = html.escape(text)
    return escaped.replace("\n", "<span class='break'></span>\n").replace("\t", "<span class='tab'></span>\t")


def _kinds(piece: Piece) -> str:
    marks = {"learned": piece.learned, "special": piece.special, "cut": piece.cut}
    role = piece.about[0]
    return " ".join([*([f"role-{role}"] if role else []), *(name for name, there in marks.items() if there)])


def _label(role: str, reason: str, words: Mapping[str, str]) -> str:
    """The word before what somebody wrote; the template's own pieces need none."""
    if role in ("", "template", "text"):
        return ""
    said = words[f"template.role.{role}"]
    unusual = reason in ("history", "excluded", "thought")
    return f"{said} ({words[f'template.reason.{reason}']})" if unusual else said


def _title(role: str, reason: str, parts: Sequence[Piece], words: Mapping[str, str]) -> str:
    """`198 · user · asked`; of several tokens how many they are; of text that no token stands for, nothing."""
    tokens = [token for each in parts for token in each.tokens]
    if not tokens:
        return ""
    several = len(parts) > 1
    which = words["template.tokens_here"].format(count=len(tokens)) if several else " + ".join(
        str(token.id) for token in tokens
    )  # fmt: skip
    state = "beyond" if parts[0].cut else "learned" if parts[0].learned else "not_learned"
    said = (words[f"template.role.{role}"], words[f"template.reason.{reason}"], words[f"template.{state}"])
    return " · ".join(dict.fromkeys((which, *said)))


def _said(words: Mapping[str, str], key: str) -> str:
    return html.escape(words[key])
