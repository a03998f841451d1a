"""A backend's copy of memory, fed from the outbox."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from store import DeliveryFailed, Entry, Journal, Outbox

from .cleaning import compact, json_object
from .inbox import backlog_of, bring_in
from .interface import MemoryBackend, MemoryEvent, MemoryUnavailable, Removal
from .removal import remove
from .rows import SELECT, event_of, key_of, owner_of
from .told import Told

SINK = "memory"
_REMOVAL = "removal:"


class Copies:
    """Says in the journal's changes what the copy must get, and delivers it; what a record took leaves the journal.

    An entry for an event holds its id alone: the event is read when its turn comes, so that what was removed meanwhile
    is sent nowhere. What was removed while it was on its way is removed from the copy before its entry counts as
    done; if the process dies between the two, the entry comes again, and then says: remove it.
    """

    def __init__(self, journal: Journal, backend: MemoryBackend, outbox: Outbox) -> None:
        self._journal = journal
        self._inbox = backlog_of(journal)
        self._backend = backend
        self._outbox = outbox

    def add(self, connection: sqlite3.Connection, event: MemoryEvent) -> None:
        """Within the change that keeps `event`."""
        self._outbox.put(connection, sink=SINK, id=event.id, owner=event.user, body=b"")

    def remove(self, connection: sqlite3.Connection, removal: Removal) -> None:
        """Within the change that removes the same from the journal."""
        body = compact({"ids": removal.ids, "until": removal.until}).encode()
        last = removal.until if removal.ids is None else removal.ids[-1]
        self._outbox.put(connection, sink=SINK, id=f"{_REMOVAL}{last}", owner=removal.user, body=body)

    def forget(self, connection: sqlite3.Connection, removal: Removal) -> None:
        """As `remove`, and what waits for that user goes nowhere."""
        self._outbox.drop_owner(connection, removal.user, SINK, under_way=False)
        self.remove(connection, removal)

    async def deliver(self, entries: Sequence[Entry]) -> None:
        """For `store.Delivery`. Raises `DeliveryFailed`."""
        wanted = {entry.id: entry.owner for entry in entries if not entry.id.startswith(_REMOVAL)}
        removals = [removal_of(entry) for entry in entries if entry.id.startswith(_REMOVAL)]
        there = await self._inbox.read(partial(_events, wanted))
        try:
            if removals:  # First: what was kept after a removal was asked for is not meant by it.
                await self._backend.delete(removals)
            if there:
                await self._backend.deliver(list(there.values()))
                there = await self._inbox.read(partial(_events, wanted))
                if self._backend.reader is not None:
                    await self._journal.write(partial(_let_go, there.values()))
            if gone := [Removal(user=user, ids=(one,)) for one, user in wanted.items() if one not in there]:
                await self._backend.delete(gone)
        except MemoryUnavailable as fault:
            raise DeliveryFailed(str(fault), retry_after=fault.retry_after) from fault


def removal_of(entry: Entry) -> Removal:
    """What `Copies.remove` put into the outbox."""
    said = json_object(entry.body)
    ids = said["ids"]
    return Removal(user=entry.owner, ids=None if ids is None else tuple(ids), until=said["until"])


def _let_go(events: Iterable[MemoryEvent], connection: sqlite3.Connection) -> None:
    """Take what is safe elsewhere out of the journal."""
    bring_in(connection)
    for event in events:
        owner = owner_of(connection, event.user)
        row = connection.execute(
            "SELECT seq FROM mem_events WHERE owner = ? AND id = ?", (owner, key_of(event.id))
        ).fetchone()
        if owner is not None and row is not None:
            remove(connection, owner, row[0])


def _events(wanted: Mapping[str, str], connection: sqlite3.Connection) -> dict[str, MemoryEvent]:
    found, told = {}, Told(connection)
    for id, user in wanted.items():  # noqa: A001 - as the event calls it
        row = connection.execute(
            f"{SELECT} WHERE owner = ? AND id = ?", (owner_of(connection, user), key_of(id))
        ).fetchone()
        if row is not None:
            found[id] = event_of(row, user, told.up_to(row[2])[0])
    return found
