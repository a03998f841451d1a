"""What may be kept of a JSON value: no secret, no media, nothing that a store cannot hold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from .interface import MemoryEvent
from .media import digest_of
from .redact import Redactor, Steps

DEEPEST = 64
LONGEST_NAME = 1024
TOO_DEEP = "[nested too deeply to be kept]"
_LARGEST = 2**63  # Beyond it stores and other readers fail on an integer that JSON allows.


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
# Writes strings as `_encode` does, in a seventh of the time; numbers it does not.
_encode_strings = msgspec.json.Encoder().encode


class Cleaner:
    """Cleans values in steps, each no more work than a slice of the redactor's.

    Args:
        redactor: None: secrets stay.
        keep_media: Media stay.
    """

    def __init__(self, redactor: Redactor | None, *, keep_media: bool = False) -> None:
        self._redactor = redactor
        self._keep_media = keep_media

    def text(self, text: str) -> Steps[str]:
        """`text` without secrets, and without halves of surrogate pairs, which UTF-8 has not."""
        if not text.isascii():
            text = text.encode(errors="replace").decode()
        if self._redactor is None or self._redactor.is_harmless(text):
            return text
        return (yield from self._redactor.steps(text))

    def body(self, message: Mapping[str, Any]) -> str | None:
        """The JSON text of a message that a glance shows to be kept as it is. None: it may be."""
        if len(message) != 2 or not isinstance(message, dict):  # Most have a role and a content.
            return None
        for name, text in message.items():
            if not isinstance(text, str) or not name.isascii() or not self._stays(text, name):
                return None
        return _encode_strings(message).decode()

    def takes(self, event: MemoryEvent) -> bool:
        """Whether a glance shows that all of `event` but its messages is kept as it is. False: it may be."""
        if event.tool_calls or event.fields:
            return False
        session, request, task, run = event.session_id, event.request_id, event.task_id, event.run_id
        for name in (session, request, task, run, event.agent, event.project, event.model, event.path):
            if name is not None and (len(name) > LONGEST_NAME or not name.isascii()):
                return False
        said = f"{event.answer}\n{event.reasoning}\n{event.text}" if event.reasoning or event.text else event.answer
        return said.isascii() and (self._redactor is None or self._redactor.is_harmless(said))

    def value(self, value: Any, *, member: str = "", depth: int = 0) -> Steps[Any]:
        """A JSON value cleaned. `member`: the name that it stands under, for lists that of the list."""
        if isinstance(value, str):
            return (yield from self._string(value, member))
        if isinstance(value, Mapping | list | tuple) and depth >= DEEPEST:
            return TOO_DEEP
        if isinstance(value, Mapping):
            cleaned = {}
            for name, inner in value.items():
                as_is = isinstance(inner, str) and self._stays(inner, name)
                cleaned[_text(name)] = inner if as_is else (yield from self.value(inner, member=name, depth=depth + 1))
            return cleaned
        if isinstance(value, list | tuple):
            items = []
            for inner in value:
                items.append((yield from self.value(inner, member=member, depth=depth + 1)))  # noqa: PERF401 - it yields
            return items
        if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
            return float(value) if abs(value) < 2**1023 else None
        if isinstance(value, float) and not math.isfinite(value):
            return None  # JSON has no word for it (RFC 8259 §6).
        return value

    def _stays(self, text: str, member: str) -> bool:
        """Whether a glance shows that `text` is kept as it is. False: it may be."""
        harmless = self._redactor is None or self._redactor.is_harmless(text)
        return harmless and text.isascii() and digest_of(member, text) is None

    def _string(self, text: str, member: str) -> Steps[Any]:
        digest = digest_of(member, text)
        if digest is not None:
            yield
            return text if self._keep_media else digest
        return (yield from self.text(text))


def compact(value: Any) -> str:
    """A JSON text in as few characters as it takes."""
    if not value and isinstance(value, list | tuple | dict):  # As most lists and objects of an event are.
        return "{}" if isinstance(value, dict) else "[]"
    return _encode(value)


def _text(name: object) -> str:
    if isinstance(name, str) and name.isascii():
        return name
    return str(name).encode(errors="replace").decode()


def json_object(text: str | bytes) -> dict[str, Any]:
    """What `compact` made of an object."""
    members: dict[str, Any] = json.loads(text)
    return members
