"""Values that may be used once, held until they would be refused anyway."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Protocol

from .changes import JournalError
from .journal import Journal

SWEEP_SECONDS = 60.0


class OnceUnavailable(Exception):
    """It cannot be said now whether a value was used: the store is full or cannot be reached. Ask again."""


class OnceStore(Protocol):
    """What was used, shared by everything that must agree about it: the workers of a machine, or several machines.

    Nothing is ever let go before its time. A store has a size: when it is full of values whose time has not come, it
    refuses new ones.
    """

    async def claim(self, kind: str, key: str, value: str, *, until: float) -> str | None:
        """Hold `value` for `key` among the keys of `kind` until `until`, in seconds since the epoch, if it is free.

        Of many calls at a time one gets it.

        Returns:
            None: it was free, and is held from now on. Else what holds it, which stays.

        Raises:
            OnceUnavailable: And nothing was changed.
        """
        ...

    async def held(self, kind: str, key: str) -> str | None:
        """What holds `key` now; None if it is free. Raises `OnceUnavailable`."""
        ...


class MemoryOnce(OnceStore):
    """For one process that may forget everything at its end."""

    def __init__(self, clock: Callable[[], float] = time.time, *, capacity: int = 100_000) -> None:
        self._clock = clock
        self._capacity = capacity
        self._held: dict[tuple[str, str], tuple[str, float]] = {}
        self._sweep_at = 0.0

    async def claim(self, kind: str, key: str, value: str, *, until: float) -> str | None:
        holder = await self.held(kind, key)
        if holder is not None:
            return holder
        self._sweep()
        if len(self._held) >= self._capacity:
            raise OnceUnavailable("full")
        self._held[kind, key] = (value, until)
        return None

    async def held(self, kind: str, key: str) -> str | None:
        holder, until = self._held.get((kind, key), (None, 0.0))
        return holder if self._clock() < until else None

    def _sweep(self) -> None:
        now = self._clock()
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_SECONDS
            self._held = {key: entry for key, entry in self._held.items() if now < entry[1]}


class JournalOnce(OnceStore):
    """For every process of this machine that shares the journal; survives all of them."""

    def __init__(self, journal: Journal, clock: Callable[[], float] = time.time, *, capacity: int = 1_000_000) -> None:
        """`capacity` is looked at once a minute, and may be exceeded by what comes in between in other processes."""
        self._journal = journal
        self._clock = clock
        self._capacity = capacity
        self._sweep_at = 0.0
        self._rows = 0

    async def claim(self, kind: str, key: str, value: str, *, until: float) -> str | None:
        def change(connection: sqlite3.Connection) -> str | None:
            now = self._clock()
            holder = _holder(connection, kind, key, now)
            if holder is not None:
                return holder
            self._sweep(connection, now)
            if self._rows >= self._capacity:
                raise OnceUnavailable("full")
            connection.execute(
                "REPLACE INTO once (kind, key, value, until) VALUES (?, ?, ?, ?)", (kind, key, value, until)
            )
            self._rows += 1
            return None

        return await self._write(change)

    async def held(self, kind: str, key: str) -> str | None:
        return await self._write(lambda connection: _holder(connection, kind, key, self._clock()))

    async def _write(self, change: Callable[[sqlite3.Connection], str | None]) -> str | None:
        try:
            return await self._journal.write(change)
        except (JournalError, sqlite3.Error) as error:
            raise OnceUnavailable("journal") from error

    def _sweep(self, connection: sqlite3.Connection, now: float) -> None:
        if now >= self._sweep_at:
            connection.execute("DELETE FROM once WHERE until <= ?", (now,))
            (self._rows,) = connection.execute("SELECT COUNT(*) FROM once").fetchone()
            self._sweep_at = now + SWEEP_SECONDS


def _holder(connection: sqlite3.Connection, kind: str, key: str, now: float) -> str | None:
    row = connection.execute(
        "SELECT value FROM once WHERE kind = ? AND key = ? AND until > ?", (kind, key, now)
    ).fetchone()
    return None if row is None else str(row[0])
