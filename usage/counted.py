"""Usage as metrics."""

from __future__ import annotations

from typing import Self

from store import Change

from .interface import UsageBackend, UsageEvent
from .metrics import Metrics


class CountedUsage(UsageBackend):
    """Counts what exchanges say about the engine and, where `users` is set, about each user."""

    writes = False

    def __init__(self, metrics: Metrics, *, users: bool) -> None:
        self._metrics = metrics
        self._users = users

    def changes(self, event: UsageEvent) -> Change | None:
        return None

    def observe(self, event: UsageEvent) -> None:
        self._metrics.answered(event)
        if self._users:
            self._metrics.used(event)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass
