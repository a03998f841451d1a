"""A stand-in for OpenMeter: takes batches of CloudEvents, and fails as a test says."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.servers import Connection, Received

KEY = "om_secret"


@dataclass
class OpenMeter:
    """Answers as the real one: 204, or 400 for a batch with an event that is not well formed.

    Attributes:
        events: What was taken, by id; one that comes again changes nothing.
        taken: How often each was taken.
        refuse: The status to fail a request with, told its number; None: take it.
        loses: Whether to take a request, told its number, and then break the connection in place of an answer.
        delay: Seconds before each answer.
    """

    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    taken: Counter[str] = field(default_factory=Counter)
    refuse: Callable[[int], int | None] = lambda number: None
    loses: Callable[[int], bool] = lambda number: False
    delay: float = 0.0
    requests: int = 0

    async def script(self, received: Received, connection: Connection) -> None:
        assert (received.method, received.target) == (b"POST", b"/api/v1/events")
        assert received.one("authorization") == b"Bearer " + KEY.encode()
        assert received.one("content-type") == b"application/cloudevents-batch+json"
        self.requests += 1
        loses, status = self.loses(self.requests), self.refuse(self.requests)
        await asyncio.sleep(self.delay)
        if status is not None:
            await connection.answer(b"{}", f"{status} No", retry_after="0")
            return
        batch = json.loads(received.body)
        if any(event["data"]["tokens"] < 0 for event in batch):
            await connection.answer(b"{}", "400 Bad Request")
            return
        for event in batch:
            self.events.setdefault(event["id"], event)
            self.taken[event["id"]] += 1
        if loses:
            connection.abort()
        else:
            await connection.head("204 No Content")


def failing(share: float, seed: int = 1) -> Callable[[int], int | None]:
    """Fail that share of the requests, each in one of several ways."""
    chance = random.Random(seed)
    return lambda number: chance.choice((500, 502, 503, 429)) if chance.random() < share else None
