"""A mapping for rows whose columns have no usual names, suggested by what the columns hold.

Always below a confidence of 0.5 and said to be a suggestion: a person decides. Not here: formats that are recognised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.data.example import Confidence, Values

MOST = 0.45
"""The confidence of a suggestion that fits every row."""

QUESTIONS = ("instruction", "question", "prompt", "query", "problem")
ASKING = (*QUESTIONS, "input", "source", "src", "document", "article")
ANSWERING = (
    "answer",
    "answers",
    "output",
    "completion",
    "response",
    "reply",
    "solution",
    "target",
    "tgt",
    "summary",
    "ref",
)
ANSWERS = {"answer", "answers"}
GIVEN = ("input", "context", "passage", "background")
"""What a question is about, where it stands apart."""
SAYING = ("message", "text", "content", "value", "utterance")
TALKS = ("conversation", "conversations", "dialog", "dialogue", "messages", "turns", "utterances")
LABELS = ("label", "class", "category", "intent", "sentiment", "tag", "type", "domain", "topic")
ABOUT = ("id", "idx", "index", "name", "year", "date", "url", "lang", "language", "split", "source", "timestamp")
"""Last names of columns that say something about a row rather than in it."""
FIRST_SPEAKERS = ("user", "human", "customer", "client", "patient", "usr", "question", "q")
DEEPEST = 3

Suggestion = tuple[str, Confidence]


@dataclass(frozen=True)
class Column:
    """What a path holds over some rows. share: of the rows that have it. length: mean characters. text: no number."""

    path: str
    share: float
    length: float
    values: Counter[str]
    text: bool = True

    @property
    def names(self) -> list[str]:
        """The names on the path, in small letters, the last one first: of `a[0].b` it is b, a."""
        return [name.strip() for name in reversed(self.path.replace("[0]", "").replace("[]", "").lower().split("."))]

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def joined(self) -> bool:
        return self.path.endswith("[]")

    @property
    def recurs(self) -> bool:
        """Whether it holds few different short values, as a label does."""
        different = len(self.values)
        short = max(map(len, self.values)) <= 40
        return short and 2 <= different <= 50 and different * 4 <= self.values.total()


def suggest(rows: Sequence[Values]) -> Suggestion | None:
    """A format and a mapping for it; None where the rows hold no text that could be learned from."""
    rows = [row for row in rows if isinstance(row, Mapping)]
    columns = _columns(rows)
    texts = [each for each in columns if each.text]
    return _talk(rows, texts) or _named_pair(texts) or _labelled(columns) or _two_texts(texts) or _one_text(texts)


def _suggestion(format: str, share: float, columns: dict[str, str], why: str, tags: dict[str, str] | None = None):
    reason = f"No format fits by its usual names. A suggestion, to be checked: {why}."
    return format, Confidence(MOST * share, reason, columns, tags or {})


# --- Conversations in other words ---


def _talk(rows: Sequence[Values], texts: Sequence[Column]) -> Suggestion | None:
    """A list of turns with another word for what is said, and with or without one for who says it."""
    beside = max((each.length for each in texts if "[" not in each.path), default=0)
    for name in dict.fromkeys(name for row in rows for name in row):
        talks = [row[name] for row in rows if isinstance(row.get(name), list) and len(row[name]) > 1]
        if len(talks) * 2 <= len(rows):
            continue
        turns = [turn for talk in talks for turn in talk]
        share = len(talks) / len(rows)
        if name.lower() in TALKS and all(isinstance(turn, str) for turn in turns):
            why = f"{name} is a list of texts, said in turn, the user's first"
            return _suggestion("sharegpt", share, {"messages": name}, why, {"role_tag": "", "content_tag": ""})
        tags = _tags(turns) if all(isinstance(turn, Mapping) for turn in turns) else None
        # shorter than the text beside it, a list of objects is rather what was found in that text
        if tags and sum(len(turn[tags["content_tag"]]) for turn in turns) > beside * len(talks):
            who = tags["role_tag"]
            roles = f"each with {who}" if who else "without roles, taken as said in turn, the user's first"
            why = f"{name} is a list of turns with {tags['content_tag']}, {roles}"
            return _suggestion("sharegpt", share, {"messages": name}, why, tags)
    return None


def _tags(turns: Sequence[Mapping[str, Any]]) -> dict[str, str] | None:
    """Which key of the turns is what is said, and which one, if any, is one of two who say it."""
    always = [key for key in turns[0] if all(isinstance(turn.get(key), str) for turn in turns)]
    spoken = next((key for key in SAYING if key in always), always[0] if len(always) == 1 else None)
    if spoken is None:
        return None
    for key in always:
        speakers = list(dict.fromkeys(turn[key] for turn in turns))
        if key != spoken and len(speakers) == 2:
            user = next((each for each in speakers if each.lower() in FIRST_SPEAKERS), speakers[0])
            other = speakers[speakers[0] == user]
            return {"role_tag": key, "content_tag": spoken, "user_tag": user, "assistant_tag": other}
    return {"role_tag": "", "content_tag": spoken}


# --- Pairs, labels, texts ---


def _named_pair(columns: Sequence[Column]) -> Suggestion | None:
    """A column whose name asks and one whose name answers, at any depth.

    Where exam questions have an answer and an analysis, the answer: it is what is asked for and what a score can be
    computed from. Who wants the model to explain itself maps the response to the analysis.
    """
    asks = _named(columns, ASKING)
    rest = [each for each in columns if each is not asks]
    answers = _named(rest, ANSWERING) or next((each for each in rest if not ANSWERS.isdisjoint(each.names)), None)
    if asks is None or answers is None:
        return None
    query = _named(rest, GIVEN)
    # several answers to one question are alternatives; as parts of one they would be called an answer
    response = answers.path.replace("[]", "[0]") if "answers" in answers.names else answers.path
    found = {"prompt": asks.path, "response": response} | ({"query": query.path} if query else {})
    format = "alpaca" if query or asks.name == "instruction" else "prompt_completion"
    why = f"{asks.path} asks and {response} answers"
    return _suggestion(format, min(asks.share, answers.share), found, why)


def _labelled(columns: Sequence[Column]) -> Suggestion | None:
    """A column of text beside one with few different short values."""
    labels = [each for each in columns if each.recurs and not each.joined and each.name not in ABOUT]
    texts = [each for each in columns if each.text and not (each.recurs or each.joined or each.name in ABOUT)]
    if not labels or not texts:
        return None
    label = _named(labels, LABELS) or min(labels, key=lambda each: len(each.values))
    text = max(texts, key=lambda each: each.length)
    if text.length < 3 * label.length:
        return None
    why = f"{text.path} is text and {label.path} has only {len(label.values)} different values"
    share = min(text.share, label.share)
    return _suggestion("classification", share, {"text": text.path, "label": label.path}, why)


def _two_texts(columns: Sequence[Column]) -> Suggestion | None:
    texts = [each for each in columns if not each.joined and each.name not in ABOUT and not each.recurs]
    if len(texts) != 2:
        return None
    first, second = texts
    why = f"{first.path} asks and {second.path} answers, as the only two columns of text"
    found = {"prompt": first.path, "response": second.path}
    return _suggestion("prompt_completion", min(first.share, second.share), found, why)


def _one_text(columns: Sequence[Column]) -> Suggestion | None:
    """The column that holds nearly all of the text: to be learned, or to be answered where its name is a question's."""
    if not columns:
        return None
    most = max(columns, key=lambda each: each.length * each.share)
    if most.length < 0.7 * sum(each.length for each in columns):
        return None
    if most.name in QUESTIONS:
        return _suggestion("prompt", most.share, {"prompt": most.path}, f"{most.path} asks and no column answers")
    if _named(columns, QUESTIONS):  # what is longer than a question, such as its choices, is no text to learn
        return None
    return _suggestion("text", most.share, {"text": most.path}, f"{most.path} holds nearly all of the text")


def _named(columns: Sequence[Column], names: Sequence[str]) -> Column | None:
    """The column with the best of the names."""
    known = [each for each in columns if each.name in names]
    return min(known, key=lambda each: names.index(each.name), default=None)


# --- What the columns hold ---


def _columns(rows: Sequence[Values]) -> list[Column]:
    """The paths that hold text or numbers in at least half of the rows, in the order of the rows."""
    held: dict[tuple[str, bool], list[str]] = {}
    for row in rows:
        for path, value in _values(row, ""):
            held.setdefault((path, isinstance(value, str)), []).append(str(value))
    return [
        Column(path, len(values) / len(rows), sum(map(len, values)) / len(values), Counter(values), text)
        for (path, text), values in held.items()
        if len(values) * 2 >= len(rows) and any(value.strip() for value in values)
    ]


def _values(value: Mapping[str, Any], before: str, depth: int = 0) -> Iterator[tuple[str, str | int]]:
    """Path and value of all that a column can name: texts, whole numbers, lists of texts, first entries of lists."""
    for key, inner in value.items():
        path = f"{before}{key}"
        if isinstance(inner, str | int):
            yield path, inner
        elif isinstance(inner, Mapping) and depth < DEEPEST:
            yield from _values(inner, f"{path}.", depth + 1)
        elif isinstance(inner, list) and inner:
            if all(isinstance(each, str) for each in inner):
                yield f"{path}[]", "\n".join(inner)
            elif isinstance(inner[0], Mapping) and depth < DEEPEST:
                yield from _values(inner[0], f"{path}[0].", depth + 1)
