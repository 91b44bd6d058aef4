"""A tokenizer without transformers: text to tokens and places, the special tokens, and the model's own template.

Not here: how a conversation is encoded (encoding).
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from studio.errors import ModelError, TemplateError
from studio.templates import library
from studio.templates.library import AUTO
from studio.templates.pieces import Pieces, reads_pieces_alike
from studio.templates.quoting import Span, any_of
from studio.templates.rendering import Template, variables

_BREAK = f"\ufdd0{secrets.token_hex(8)}\ufdd1"
"""A token that no text can hold, because nobody can foresee it: what stands after it does not begin a text."""

SPECIALS = ("bos_token", "eos_token", "pad_token", "unk_token")


class TextTokenizer:
    """A `tokenizers.Tokenizer` with the strings of its special tokens and the model's own chat template."""

    def __init__(self, backend: Tokenizer | str, specials: Mapping[str, str], chat_template: str | None = None):
        """backend: copied, because another user may set truncation or padding on it; or its JSON. specials: such as
        eos_token."""
        self.backend = Tokenizer.from_str(backend if isinstance(backend, str) else backend.to_str())
        self.backend.no_truncation()
        self.backend.no_padding()
        self.specials = {name: specials[name] for name in SPECIALS if specials.get(name)}
        self.chat_template = chat_template

    @classmethod
    def from_folder(cls, folder: Path) -> TextTokenizer:
        """Read tokenizer.json, tokenizer_config.json and chat_template.jinja.

        Raises: ModelError: tokenizer.json is missing or broken; the text says which.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelError(
                f"{folder} has no tokenizer.json, so no text can be tokenized for it. Choose a complete model."
            )
        try:
            backend = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise ModelError(f"{path} cannot be read: {error}.") from error
        config = _settings(folder / "special_tokens_map.json") | _settings(folder / "tokenizer_config.json")
        specials = {name: _token_text(config.get(name)) for name in SPECIALS}
        backend = _renamed(backend, config)
        _add_configured(backend, config, specials)
        return cls(backend, specials, _chat_template(folder, config))

    @cached_property
    def own_template(self) -> Template:
        """The model's own template. Raises: TemplateError: it has none, or it is not valid Jinja."""
        if not self.chat_template:
            fit = [each.name for each in self.fitting if each.stop] or ["default", "alpaca"]
            raise TemplateError(
                "This model has no chat template of its own. Choose another template.name; its tokenizer knows the "
                f"tokens of {', '.join(fit[:5])}."
            )
        template = Template(AUTO, self.chat_template)
        variables(template)  # a fault is told at once, not with the first row
        return template

    @property
    def fitting(self) -> list[Template]:
        """The templates of the studio whose stops are tokens here."""
        return [
            each for each in library.every() if all(self.backend.token_to_id(stop) is not None for stop in each.stop)
        ]

    @cached_property
    def special_strings(self) -> tuple[str, ...]:
        """Strings of the tokens that are special, longest first."""
        added = self.backend.get_added_tokens_decoder().values()
        found = {token.content for token in added if token.special} | {self.specials.get("eos_token", "")}
        return tuple(sorted(found - {""}, key=len, reverse=True))

    @cached_property
    def start_string(self) -> str:
        """The start token, if the tokenizer itself puts it before plain text."""
        ids, bos = self.backend.encode("").ids, self.specials.get("bos_token", "")
        return bos if bos and ids[:1] == [self.backend.token_to_id(bos)] else ""

    @cached_property
    def special(self) -> re.Pattern[str]:
        """Finds any of the special strings."""
        return any_of(self.special_strings)

    @cached_property
    def pieces(self) -> Pieces | None:
        """Tokenises by pieces, as far as this tokenizer reads each the same wherever it stands."""
        if not reads_pieces_alike(self.backend, self.special_strings):
            return None
        return Pieces(self.backend, self.special, self.special_strings)

    def ids(self, text: str) -> list[int]:
        return self.backend.encode(text, add_special_tokens=False).ids

    def encode(
        self, text: str, quoted: Sequence[Span] = (), breaks: Sequence[int] = ()
    ) -> tuple[list[int], Sequence[Span]]:
        """Tokens and the place of each.

        quoted: special strings that are to be read as plain text. breaks: places that no token may reach across. Both
        ascend.
        """
        hidden = _hidden(text, quoted)
        if breaks:
            found, spans = _broken(self._breakable, hidden, 0, len(text), breaks)
        else:
            encoding = self.backend.encode(hidden, add_special_tokens=False)
            found, spans = encoding.ids, encoding.offsets
        if not quoted:
            return found, spans
        ids: list[int] = []
        places: list[Span] = []
        for begin, end, some_ids, some_places in self._between_specials(text, found, spans):
            within = [span for span in quoted if begin <= span[0] < end]
            if within:
                inner = [place for place in breaks if begin < place < end]
                some_ids, some_places = self._plain_tokens(text, begin, end, within, inner)
            ids += some_ids
            places += some_places
        return ids, places

    def _between_specials(
        self, text: str, ids: Sequence[int], places: Sequence[Span]
    ) -> Iterator[tuple[int, int, list[int], list[Span]]]:
        """Each special token alone, and what stands between two of them: (begin, end, ids, places).

        A tokenizer reads these pieces apart from each other, so one can be replaced without a change in the others.
        """
        begin = first = 0
        for index, (start, end) in enumerate(places):
            if self._is_special(text, ids[index], (start, end)):
                yield begin, start, list(ids[first:index]), list(places[first:index])
                yield start, start, [ids[index]], [(start, end)]
                begin, first = end, index + 1
        yield begin, len(text), list(ids[first:]), list(places[first:])

    def _plain_tokens(
        self, text: str, begin: int, end: int, quoted: Sequence[Span], breaks: Sequence[int]
    ) -> tuple[list[int], list[Span]]:
        """The tokens of a piece of the text in which nothing is special."""
        ids, places = _broken(self._plain, text, begin, end, breaks)
        if any(self._is_special(text, *token) for token in zip(ids, places, strict=True)):
            # some vocabularies hold the string of a special token as a word of their own
            return _broken(self._plain, text, begin, end, sorted({*breaks, *(start + 1 for start, _ in quoted)}))
        return ids, places

    def _is_special(self, text: str, number: int, place: Span) -> bool:
        # the string too, because a character that a vocabulary lacks becomes the same token as an unknown word
        return number in self._special_ids and text[slice(*place)].strip() in self.special_strings

    @cached_property
    def _special_ids(self) -> frozenset[int | None]:
        return frozenset(self.backend.token_to_id(string) for string in self.special_strings)

    @cached_property
    def _breakable(self) -> Tokenizer:
        """A copy that knows the token for a break."""
        copy = Tokenizer.from_str(self.backend.to_str())
        copy.add_tokens([AddedToken(_BREAK, normalized=False, special=False)])
        return copy

    @cached_property
    def _plain(self) -> Tokenizer:
        """A copy that reads special strings as text."""
        plain = Tokenizer.from_str(self._breakable.to_str())
        plain.encode_special_tokens = True
        return plain

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones too."""
        return self.backend.decode(list(ids), skip_special_tokens=False)


def own(folder: Path) -> Template:
    """The model's own template, from the folder of its tokenizer. Raises: ModelError, TemplateError: it has none."""
    return TextTokenizer.from_folder(folder).own_template


def resolve(name: str, tokenizer: TextTokenizer) -> Template:
    """The template of a spec: "auto" is the model's own. Raises: TemplateError."""
    return tokenizer.own_template if name == AUTO else library.load(name)


def _broken(backend: Tokenizer, text: str, begin: int, end: int, breaks: Sequence[int]) -> tuple[list[int], list[Span]]:
    """The tokens of a piece of the text, none of which reaches across a break. backend: one that knows _BREAK."""
    cuts = [begin, *breaks, end]
    piece = _BREAK.join(text[one:other] for one, other in pairwise(cuts))
    encoding = backend.encode(_BREAK + piece if begin else piece, add_special_tokens=False)
    unreal = backend.token_to_id(_BREAK)
    ids, places, shift = [], [], begin
    for number, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True):
        if number == unreal:
            shift -= len(_BREAK)
        else:
            ids.append(number)
            places.append((start + shift, stop + shift))
    return ids, places


def _hidden(text: str, quoted: Sequence[Span]) -> str:
    """The text with letters in the place of special strings, so that only the template's own are found."""
    pieces, place = [], 0
    for begin, end in quoted:
        pieces += (text[place:begin], "x" * (end - begin))
        place = end
    return "".join([*pieces, text[place:]]) if quoted else text


def _settings(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes()) if path.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}.") from error
    return values if isinstance(values, dict) else {}


def _renamed(backend: Tokenizer, config: Mapping[str, Any]) -> Tokenizer:
    """With the names that the config gives to words of the vocabulary, where these are only placeholders.

    InternLM 2 calls its word 92543, [UNUSED_TOKEN_146], <|im_start|>. transformers appends such a name to the
    vocabulary instead, beyond the last row of the model's weights.
    """
    entries = config.get("added_tokens_decoder")
    names = {
        old: text
        for number, entry in (entries.items() if isinstance(entries, dict) else ())
        if str(number).isdigit() and (text := _token_text(entry))
        if backend.token_to_id(text) is None and (old := backend.id_to_token(int(number))) is not None
    }
    if not names:
        return backend
    values = json.loads(backend.to_str())
    vocabulary = values["model"].get("vocab")
    merged = {"".join(pair) for pair in values["model"].get("merges", ())}
    if not isinstance(vocabulary, dict) or merged & names.keys():
        return backend  # a word of the language, not a placeholder
    values["model"]["vocab"] = {names.get(word, word): number for word, number in vocabulary.items()}
    return Tokenizer.from_str(json.dumps(values))


def _add_configured(backend: Tokenizer, config: Mapping[str, Any], specials: Mapping[str, str]) -> None:
    """Make tokens whole that only the config names, as transformers does; the vocabulary itself does not grow."""
    entries = config.get("added_tokens_decoder")
    named = (
        {number: entry for number, entry in entries.items() if str(number).isdigit()}
        if isinstance(entries, dict)
        else {}
    )
    wanted = {_token_text(entry): int(number) for number, entry in named.items()}
    wanted |= {text: backend.token_to_id(text) for text in specials.values() if text}
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    for text, number in wanted.items():
        if text and text not in known and number is not None and backend.token_to_id(text) == number:
            entry = named.get(str(number), {})
            if isinstance(entry, dict) and not entry.get("special", True):
                backend.add_tokens([AddedToken(text, normalized=False, special=False)])
            else:
                backend.add_special_tokens([AddedToken(text, normalized=False, special=True)])


def _token_text(entry: Any) -> str:
    """A special token as the config writes it: its text, or an object around the text."""
    text = entry.get("content") if isinstance(entry, dict) else entry
    return text if isinstance(text, str) else ""


def _chat_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The file goes before the config; of several named ones the default is taken."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    found = config.get("chat_template")
    if isinstance(found, list):
        by_name = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
        found = by_name.get("default")
    return found if isinstance(found, str) else None
