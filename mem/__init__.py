"""What was asked and answered, kept for its owner."""

from .exchange import exchange_event
from .forms import Caller
from .interface import (
    EventKind,
    EventQuery,
    InvalidMemory,
    MemoryBackend,
    MemoryEvent,
    MemoryFault,
    MemoryOff,
    MemoryReader,
    MemoryTooLarge,
    MemoryUnavailable,
    NoSuchEvent,
    Owner,
    Remembering,
    Removal,
    Session,
    State,
    event_id,
)
from .memory import Memory
from .redact import Redactor
from .routes import memory_routes
from .settings import MemorySettings, Redaction

__all__ = [
    "Caller",
    "EventKind",
    "EventQuery",
    "InvalidMemory",
    "Memory",
    "MemoryBackend",
    "MemoryEvent",
    "MemoryFault",
    "MemoryOff",
    "MemoryReader",
    "MemorySettings",
    "MemoryTooLarge",
    "MemoryUnavailable",
    "NoSuchEvent",
    "Owner",
    "Redaction",
    "Redactor",
    "Remembering",
    "Removal",
    "Session",
    "State",
    "event_id",
    "exchange_event",
    "memory_routes",
]
