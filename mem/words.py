"""How text becomes words, and which events say some: the same for what is indexed and for what is asked."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .interface import MemoryEvent

VERSION = 1  # Of what this module finds: a change of it has the whole index built anew.
MOST_INDEXED = 128 * 1024  # Characters of one text; what is behind is kept, but not found.
MOST_WORDS_ASKED = 32
_WORD = re.compile(r"[^\W_]+")
_ASCII = {code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128)}
# Scripts that are written without spaces: every character is a word, and a word a phrase.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_NAMES = frozenset({"role", "type", "id", "sha256", "tool_call_id", "tool_use_id", "call_id"})

Phrase = tuple[str, ...]


def words_in(text: str) -> list[str]:
    """The words of a text, without case and accents."""
    if text.isascii():
        return text.translate(_ASCII).split()
    text = unicodedata.normalize("NFKD", _UNSPACED.sub(r" \g<0> ", text))
    text = "".join(character for character in text if not unicodedata.combining(character)).casefold()
    return _WORD.findall(text.lower())


def phrases_in(question: str) -> list[Phrase]:
    """What is asked for: single words, and phrases out of what stands in double quotation marks or is no one word."""
    parts = (
        part for position, part in enumerate(question.split('"')) for part in ([part] if position % 2 else part.split())
    )
    phrases = [tuple(words) for part in parts if (words := words_in(part))]
    return phrases[:MOST_WORDS_ASKED]


def text_of_event(answer: str, reasoning: str, tool_calls: str, text: str, fields: str) -> str:
    """Everything that an event says beside its messages, given as its columns are."""
    nested = [text for value in (tool_calls, fields) if value not in {"[]", "{}"} for text in _texts(json.loads(value))]
    return "\n".join(part[:MOST_INDEXED] for part in (answer, reasoning, text, *nested))


def text_of_message(body: str) -> str:
    """Everything that a kept message says."""
    return "\n".join(part[:MOST_INDEXED] for part in _texts(json.loads(body)))


def indexed(text: str) -> str:
    """What the index is given for a text. Of ASCII it finds the same words by itself, and quicker."""
    text = text[:MOST_INDEXED]
    return text if text.isascii() else " ".join(words_in(text))


def everything_in(event: MemoryEvent) -> list[str]:
    """All words of an event."""
    said = (event.answer, event.reasoning, event.text)
    nested = (*event.messages, *event.tool_calls, event.fields)
    return [word for text in (*said, *(t for value in nested for t in _texts(value))) for word in words_in(text)]


def score(words: Sequence[str], phrases: Sequence[Phrase]) -> float:
    """How well words answer a question; 0: a phrase is missing. As BM25 weighs how often, among texts of 100 words."""
    counts = [_count(words, phrase) for phrase in phrases]
    weight = 1.2 * (0.25 + 0.75 * len(words) / 100)
    return sum(count * 2.2 / (count + weight) for count in counts) if all(counts) else 0.0


def _count(words: Sequence[str], phrase: Phrase) -> int:
    if len(phrase) == 1:
        return words.count(phrase[0])
    starts = (place for place, word in enumerate(words) if word == phrase[0])
    return sum(tuple(words[start : start + len(phrase)]) == phrase for start in starts)


def _texts(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, str):
        if name not in _NAMES:
            yield value
    elif isinstance(value, Mapping):
        for member, inner in value.items():
            yield from _texts(inner, member)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner, name)
