"""What must outlive a request: the local record, and values that may be used once."""

from .journal import Journal, JournalError
from .once import JournalOnce, MemoryOnce, OnceStore, OnceUnavailable

__all__ = ["Journal", "JournalError", "JournalOnce", "MemoryOnce", "OnceStore", "OnceUnavailable"]
