"""What must reach somebody else: kept with the record it belongs to, and sent from there until it has arrived."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

DROP_AT_ONCE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing to be delivered.

    Attributes:
        id: The same for the same thing, however often it is sent; a sink knows by it what it already has.
        owner: The user it belongs to.
        created: When it was put in, in seconds since the epoch.
        rejections: How often the sink refused it.
    """

    id: str
    owner: str
    body: bytes
    created: float
    rejections: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What waits for one sink.

    Attributes:
        entries: How many, those set aside included.
        set_aside: How many of them are tried no more.
        rejected: How many were ever set aside.
        dropped: How many were ever let go because there were too many.
        oldest: Since when the one waits that has waited longest, in seconds since the epoch; None: nothing waits.
    """

    entries: int
    bytes: int
    set_aside: int
    rejected: int
    dropped: int
    oldest: float | None


class Outbox:
    """Puts things into the outbox, inside a change of the journal: they are sent if and only if it is committed.

    It has a size for each sink. When that is reached the entries go whose turn would have come first: those set aside,
    then the oldest. They are counted.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        *,
        capacity: int = 1_000_000,
        capacity_bytes: int = 1024 * 1024 * 1024,
    ) -> None:
        self._clock = clock
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes

    def put(self, connection: sqlite3.Connection, *, sink: str, id: str, owner: str, body: bytes) -> None:  # noqa: A002
        """Have `body` sent to `sink`. What waits there under the same id already stays as it is."""
        row = connection.execute("SELECT entries, bytes FROM outbox_sinks WHERE sink = ?", (sink,)).fetchone()
        if row is None:
            connection.execute("INSERT INTO outbox_sinks (sink) VALUES (?)", (sink,))
        elif row[0] >= self._capacity or row[1] + len(body) > self._capacity_bytes:
            self._make_room(connection, sink, len(body))
        now = self._clock()
        connection.execute(
            "INSERT INTO outbox (sink, id, owner, body, created, due) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (sink, id) DO NOTHING",
            (sink, id, owner, body, now, now),
        )

    def drop(self, connection: sqlite3.Connection, sink: str, ids: Iterable[str]) -> None:
        """Send `ids` no more. What is on its way at this moment may still arrive."""
        connection.executemany("DELETE FROM outbox WHERE sink = ? AND id = ?", ((sink, one) for one in ids))

    def drop_owner(
        self, connection: sqlite3.Connection, owner: str, sink: str | None = None, *, under_way: bool = True
    ) -> None:
        """Send nothing more of `owner`, to `sink` or to anybody. What is on its way may still arrive.

        `under_way`: False leaves those entries that somebody is sending, or was when he was killed.
        """
        connection.execute(
            "DELETE FROM outbox WHERE owner = ? AND sink = coalesce(?, sink) AND (? OR lease IS NULL)",
            (owner, sink, under_way),
        )

    def _make_room(self, connection: sqlite3.Connection, sink: str, size: int) -> None:
        while True:
            entries, held = connection.execute(
                "SELECT entries, bytes FROM outbox_sinks WHERE sink = ?", (sink,)
            ).fetchone()
            if entries == 0 or (entries < self._capacity and held + size <= self._capacity_bytes):
                return
            excess = max(1, min(DROP_AT_ONCE, entries - self._capacity + 1))
            gone = connection.execute(
                "DELETE FROM outbox WHERE sequence IN"
                " (SELECT sequence FROM outbox WHERE sink = ? ORDER BY due, sequence LIMIT ?)",
                (sink, excess),
            ).rowcount
            connection.execute("UPDATE outbox_sinks SET dropped = dropped + ? WHERE sink = ?", (gone, sink))


def waiting(connection: sqlite3.Connection) -> Mapping[str, Waiting]:
    """What waits for each sink, as a query for `Journal.read`."""
    rows = connection.execute("SELECT sink, entries, bytes, set_aside, dropped FROM outbox_sinks").fetchall()
    found = {}
    for sink, entries, size, rejected, dropped in rows:
        (aside,) = connection.execute("SELECT COUNT(*) FROM outbox WHERE sink = ? AND due IS NULL", (sink,)).fetchone()
        oldest = connection.execute(
            "SELECT created FROM outbox WHERE sink = ? AND due IS NOT NULL ORDER BY sequence LIMIT 1", (sink,)
        ).fetchone()
        found[sink] = Waiting(
            entries=entries,
            bytes=size,
            set_aside=aside,
            rejected=rejected,
            dropped=dropped,
            oldest=None if oldest is None else oldest[0],
        )
    return found
