"""What was asked and answered, kept for its owner."""

from .api import memory_routes
from .exchange import exchange_event
from .factory import backend_names, build_backend, is_backend
from .forms import Caller, json_of_event
from .inbox import bring_in, has_waiting
from .interface import (
    EventKind,
    EventQuery,
    InvalidMemory,
    MemoryBackend,
    MemoryEvent,
    MemoryFault,
    MemoryOff,
    MemoryReader,
    MemoryRecord,
    MemoryTooLarge,
    MemoryUnavailable,
    NoSuchEvent,
    Owner,
    Remembering,
    Removal,
    Session,
    State,
    event_id,
    is_event_id,
)
from .memory import Memory
from .reader import page_of, search_in, users_of
from .redact import Redactor
from .settings import MemorySettings, Redaction, WeaviateSettings

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
    "MemoryRecord",
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
    "WeaviateSettings",
    "backend_names",
    "bring_in",
    "build_backend",
    "event_id",
    "exchange_event",
    "has_waiting",
    "is_backend",
    "is_event_id",
    "json_of_event",
    "memory_routes",
    "page_of",
    "search_in",
    "users_of",
]
