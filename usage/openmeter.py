"""Usage as events for OpenMeter, through the outbox."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from typing import Self

import httpx

from store import Change, Delivery, DeliveryFailed, Entry, Journal, Outbox, Pace, Rejected

from .interface import UsageBackend, UsageEvent
from .record import MOST_MODEL_CHARS, NO_MODEL
from .settings import OpenMeterSettings

SINK = "openmeter"
SOURCE = "attach-gateway"
# The lease is short, so that what a killed process was sending goes out soon after the next start.
PACE = Pace(batch=100, timeout=8.0, lease=12.0)
# What is wrong with the events rather than with the sink, the key or the moment.
_REFUSALS = frozenset({400, 413, 422})


class OpenMeterUsage(UsageBackend):
    """Sends each exchange as two CloudEvents of type `prompt`, its input and its output tokens.

    Their ids are made of the request's: what is sent again counts once. They wait in the outbox while OpenMeter
    is down; those that it refuses five times are set aside.
    """

    def __init__(
        self,
        settings: OpenMeterSettings,
        *,
        journal: Journal,
        outbox: Outbox,
        client: httpx.AsyncClient,
        pace: Pace = PACE,
    ) -> None:
        """`client` is ours from now on: opened and closed with this."""
        self._outbox = outbox
        self._client = client
        self._url = f"{settings.url.rstrip('/')}/api/v1/events"
        self._headers = {
            "Authorization": f"Bearer {settings.api_key}",
            "Content-Type": "application/cloudevents-batch+json",
        }
        self._delivery = Delivery(journal, sink=SINK, deliver=self._deliver, pace=pace)
        self._open = AsyncExitStack()

    def changes(self, event: UsageEvent) -> Change | None:
        """Nothing where no tokens were used."""
        return partial(self._put, event) if event.tokens_in or event.tokens_out else None

    def observe(self, event: UsageEvent) -> None:
        self._delivery.wake()

    async def __aenter__(self) -> Self:
        await self._open.enter_async_context(self._client)
        await self._open.enter_async_context(self._delivery)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    def _put(self, event: UsageEvent, connection: sqlite3.Connection) -> None:
        for direction, tokens in (("input", event.tokens_in), ("output", event.tokens_out)):
            name = f"{event.request_id}-{direction}"
            body = _cloud_event(event, name, direction, tokens)
            self._outbox.put(connection, sink=SINK, id=name, owner=event.user, body=body)

    async def _deliver(self, entries: Sequence[Entry]) -> None:
        """Raises `DeliveryFailed`, or `Rejected` after everything else has arrived."""
        refused = await self._send(entries)
        if refused:
            raise Rejected(refused, "OpenMeter says that they are not well formed")

    async def _send(self, entries: Sequence[Entry]) -> list[str]:
        """The ids of those that are refused, found by halving."""
        status = await self._post(b"[" + b",".join(entry.body for entry in entries) + b"]")
        if status not in _REFUSALS:
            return []
        if len(entries) == 1:
            return [entries[0].id]
        middle = len(entries) // 2
        return await self._send(entries[:middle]) + await self._send(entries[middle:])

    async def _post(self, body: bytes) -> int:
        try:
            answer = await self._client.post(self._url, content=body, headers=self._headers)
        except httpx.HTTPError as error:
            raise DeliveryFailed(type(error).__name__) from error
        if answer.is_success or answer.status_code in _REFUSALS:
            return answer.status_code
        raise DeliveryFailed(f"status {answer.status_code}", retry_after=_seconds(answer.headers.get("Retry-After")))


def _cloud_event(event: UsageEvent, name: str, direction: str, tokens: int) -> bytes:
    """As CloudEvents 1.0 has it."""
    members = {
        "specversion": "1.0",
        "id": name,
        "source": SOURCE,
        "type": "prompt",
        "subject": event.user,
        "time": datetime.fromtimestamp(event.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": {"tokens": tokens, "model": (event.model or NO_MODEL)[:MOST_MODEL_CHARS], "type": direction},
    }
    return json.dumps(members, separators=(",", ":")).encode()


def _seconds(text: str | None) -> float | None:
    """`Retry-After` where it is a number (RFC 9110 §10.2.3); a date is taken for none."""
    return float(text) if text is not None and text.isdecimal() and len(text) < 10 else None
