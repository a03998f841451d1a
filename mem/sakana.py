"""A copy of memory in Weaviate whose rows are those of a run's log: one level, one message, one run."""

from __future__ import annotations

from typing import Any

from .document import rfc3339
from .interface import MemoryEvent
from .weaviate import WeaviateMemory


class SakanaMemory(WeaviateMemory):
    """As `WeaviateMemory`, and every row can be read as a line of a log beside: `run_id`, `level`, `message`, `ts`.

    What is no line of a log gets the level `info`, or `error` where it failed, and says in `message` what it was.
    """

    def properties_of(self, event: MemoryEvent) -> dict[str, Any]:
        """As `WeaviateMemory.properties_of`, and those of a log's line."""
        row = super().properties_of(event)
        level = event.fields.get("level") if event.event == "log" else None
        row["level"] = str(level or ("error" if event.state == "error" else "info"))
        row["message"] = event.text or event.answer
        row["ts"] = rfc3339(event.timestamp)
        return row
