"""A backend for memory in the process of a test: as slow, as absent and as forgetful as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from mem import MemoryBackend, MemoryEvent, MemoryRecord, MemorySettings, MemoryUnavailable, Owner, Removal


class Shelf(MemoryBackend):
    """Keeps copies by id.

    Attributes:
        made: Every shelf that was made from settings, as `MEM_BACKEND=tests.mem.shelf:Shelf` has it.
        down: Nothing is taken, given or removed.
        changed: Set after each change of what is kept.
        gate: `deliver` waits for it before it keeps anything.
    """

    made: ClassVar[list[Shelf]] = []

    def __init__(self, settings: MemorySettings | None = None) -> None:
        self.kept: dict[str, MemoryEvent] = {}
        self.deliveries: list[str] = []
        self.down = False
        self.changed = asyncio.Event()
        self.delivering = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        if settings is not None:
            Shelf.made.append(self)

    @property
    def reader(self) -> MemoryRecord | None:
        return None

    async def __aenter__(self) -> Shelf:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def deliver(self, events: Sequence[MemoryEvent]) -> None:
        self._check()
        self.delivering.set()
        await self.gate.wait()
        self.deliveries += [event.id for event in events]
        self.kept.update({event.id: event for event in events})
        self.changed.set()

    async def delete(self, removals: Sequence[Removal]) -> None:
        self._check()
        for removal in removals:
            for event in tuple(self.kept.values()):
                meant = event.id in removal.ids if removal.ids is not None else event.id <= removal.until
                if event.user == removal.user and meant:
                    del self.kept[event.id]
        self.changed.set()

    async def search(self, owner: Owner, words: str, *, limit: int) -> Sequence[MemoryEvent]:
        self._check()
        mine = (event for event in self.kept.values() if event.user == owner.user and words in event.answer)
        return list(mine)[:limit]

    def _check(self) -> None:
        if self.down:
            raise MemoryUnavailable("The shelf is down.", retry_after=0.05)
