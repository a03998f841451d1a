"""What every copy of memory must do, and where there is one to try."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mem import EventQuery, MemoryBackend, MemoryEvent, Owner, Removal, event_id
from mem.postgres import PostgresMemory
from mem.sakana import SakanaMemory
from mem.settings import MemorySettings, WeaviateSettings
from mem.weaviate import WeaviateMemory
from tests.requirements import require

WEAVIATE = os.environ.get("ATTACH_TEST_WEAVIATE", "")
GRPC_PORT = int(os.environ.get("ATTACH_TEST_WEAVIATE_GRPC", "50051"))


def somebody() -> str:
    """A user whom nobody has heard of, since a server may outlive a test."""
    return f"user-{secrets.token_hex(6)}"


def event(user: str, answer: str, at: float = 1_700_000_000.0, **more: Any) -> MemoryEvent:
    """A chat about `answer`."""
    asked = {"role": "user", "content": f"Tell me of {answer}"}
    values: dict[str, Any] = {"messages": (asked,), "answer": answer, "model": "m", "tokens_in": 3, "tokens_out": 5}
    return MemoryEvent(user=user, event="chat", id=event_id(at), timestamp=at, **{**values, **more})


def weaviate_settings(*, grpc: bool) -> MemorySettings:
    """Of the server that `ATTACH_TEST_WEAVIATE` names, with or without its second port."""
    require("weaviate", bool(WEAVIATE), "no Weaviate to test with: ATTACH_TEST_WEAVIATE is its URL")
    return MemorySettings(weaviate=WeaviateSettings(url=WEAVIATE, grpc_port=GRPC_PORT if grpc else 9))


@asynccontextmanager
async def open_backend(name: str, database_url: str | None = None) -> AsyncIterator[MemoryBackend]:
    """One of BACKENDS, open."""
    if name == "postgres":
        async with PostgresMemory(MemorySettings(database_url=database_url)) as backend:
            yield backend
        return
    kind = SakanaMemory if name == "sakana" else WeaviateMemory
    async with kind(weaviate_settings(grpc=name == "weaviate-grpc")) as backend:
        yield backend


BACKENDS = ("postgres", "weaviate-rest", "weaviate-grpc", "sakana")

__all__ = ["BACKENDS", "EventQuery", "Owner", "Removal", "event", "open_backend", "somebody", "weaviate_settings"]
