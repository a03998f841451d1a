"""An event as a copy elsewhere holds it: plain values by name, and the words that it is found by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from .cleaning import compact
from .interface import MemoryEvent
from .words import everything_in

MOST_WORDS = 400_000  # Characters; what is behind is kept, but not found.
_AS_JSON = ("messages", "tool_calls", "fields")
_NAMES = tuple(field.name for field in fields(MemoryEvent))
_values = attrgetter(*_NAMES)


def document_of(event: MemoryEvent) -> dict[str, Any]:
    """The members of `event` that have a value; lists and objects as JSON text."""
    found = dict(zip(_NAMES, _values(event), strict=True))
    for name in _AS_JSON:
        found[name] = compact(found[name]) if found[name] else ""
    return {name: value for name, value in found.items() if value is not None and value != ""}


def event_of_document(document: Mapping[str, Any]) -> MemoryEvent:
    """Back again. Raises `KeyError`, `TypeError` or `ValueError` where it is none of ours."""
    found = {name: document[name] for name in _NAMES if document.get(name) is not None}
    for name in _AS_JSON:
        if name in found:
            value = json.loads(found[name])
            found[name] = value if name == "fields" else tuple(value)
    return MemoryEvent(**found)


def words_of(event: MemoryEvent) -> str:
    """Everything that `event` says, as it is indexed, with a space between two words."""
    return " ".join(everything_in(event))[:MOST_WORDS]


def rfc3339(seconds: float) -> str:
    """A moment in UTC, to the microsecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def seconds_of(moment: str) -> float:
    """What `rfc3339` was given."""
    return datetime.fromisoformat(moment).timestamp()
