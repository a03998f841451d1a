"""What was asked and answered, kept for its owner."""

from .exchange import exchange_event
from .interface import (
    EventKind,
    EventQuery,
    MemoryBackend,
    MemoryEvent,
    MemoryFault,
    MemoryReader,
    MemoryUnavailable,
    Owner,
    Remembering,
    Removal,
    Session,
    State,
    event_id,
)
from .memory import Memory
from .redact import Redactor
from .settings import MemorySettings, Redaction

__all__ = [
    "EventKind",
    "EventQuery",
    "Memory",
    "MemoryBackend",
    "MemoryEvent",
    "MemoryFault",
    "MemoryReader",
    "MemorySettings",
    "MemoryUnavailable",
    "Owner",
    "Redaction",
    "Redactor",
    "Remembering",
    "Removal",
    "Session",
    "State",
    "event_id",
    "exchange_event",
]
