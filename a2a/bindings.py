"""Whose a task or a context at an agent is: whoever it was first seen with. Agents themselves know only the gateway."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from typing import Literal, NamedTuple, Protocol

from store import Journal

logger = logging.getLogger(__name__)

Kind = Literal["task", "context"]

KEPT_SECONDS = 90 * 86_400.0
REFRESH_SECONDS = 86_400.0
MOST_PER_OWNER = 100_000
MOST_REMEMBERED = 20_000
_SWEEP_EVERY = 1_000


class Ids(NamedTuple):
    """Tasks and contexts of one agent."""

    tasks: frozenset[str] = frozenset()
    contexts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, *, tasks: Iterable[str] = (), contexts: Iterable[str] = ()) -> Ids:
        return cls(frozenset(tasks), frozenset(contexts))


class Bindings(Protocol):
    """Which user each task and context of each agent belongs to.

    An id is its first owner's until it is forgotten: 90 days after it was last seen, or when the same owner has had
    100,000 newer ones. Nobody can have another's forgotten.
    """

    async def owners(self, agent: str, ids: Ids) -> dict[tuple[Kind, str], str]:
        """Who has which of `ids`; those that nobody has are left out. Raises `JournalError`."""
        ...

    async def bind(self, agent: str, owner: str, ids: Ids) -> Collection[tuple[Kind, str]]:
        """Give `owner` those of `ids` that nobody has. What is somebody else's is returned. Raises `JournalError`."""
        ...

    async def count(self, agent: str, owner: str) -> int:
        """How many tasks of `agent` are `owner`'s. Raises `JournalError`."""
        ...


_Key = tuple[str, Kind, bytes]


class JournalBindings(Bindings):
    """For every process of this machine that shares the journal. Ids are kept as their SHA-256."""

    def __init__(
        self,
        journal: Journal,
        clock: Callable[[], float] = time.time,
        *,
        kept_seconds: float = KEPT_SECONDS,
        most_per_owner: int = MOST_PER_OWNER,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._kept_seconds = kept_seconds
        self._most_per_owner = most_per_owner
        self._known: OrderedDict[_Key, _Owned] = OrderedDict()
        self._written = 0

    async def owners(self, agent: str, ids: Ids) -> dict[tuple[Kind, str], str]:
        keys = _keys(agent, ids)
        since = self._clock() - self._kept_seconds
        found = {key: known.owner for key in keys if (known := self._known.get(key)) is not None and known.seen > since}
        missing = [key for key in keys if key not in found]
        if missing:
            for key, owned in (await self._journal.read(lambda connection: _read(connection, missing, since))).items():
                found[key] = owned.owner
                self._remember(key, owned)
        return {keys[key]: owner for key, owner in found.items()}

    async def bind(self, agent: str, owner: str, ids: Ids) -> Collection[tuple[Kind, str]]:
        keys = _keys(agent, ids)
        now = self._clock()
        new = [key for key in keys if not self._is_fresh(key, owner, now)]
        if not new:
            return ()
        since = now - self._kept_seconds
        owned = await self._journal.write(lambda connection: self._write(connection, new, _Owned(owner, now), since))
        for key, actual in owned.items():
            self._remember(key, actual)
        return [keys[key] for key, actual in owned.items() if actual.owner != owner]

    async def count(self, agent: str, owner: str) -> int:
        def query(connection: sqlite3.Connection) -> int:
            (number,) = connection.execute(
                "SELECT COUNT(*) FROM a2a_ids WHERE owner = ? AND agent = ? AND kind = 'task'", (owner, agent)
            ).fetchone()
            return int(number)

        return await self._journal.read(query)

    def _is_fresh(self, key: _Key, owner: str, now: float) -> bool:
        known = self._known.get(key)
        return known is not None and known.owner == owner and now < known.seen + REFRESH_SECONDS

    def _remember(self, key: _Key, owned: _Owned) -> None:
        self._known[key] = owned
        self._known.move_to_end(key)
        if len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)

    def _write(
        self, connection: sqlite3.Connection, keys: Collection[_Key], wanted: _Owned, since: float
    ) -> dict[_Key, _Owned]:
        connection.executemany(
            """
            INSERT INTO a2a_ids (agent, kind, digest, owner, seen) VALUES (?, ?, ?, ?, ?)
            ON CONFLICT (agent, kind, digest) DO UPDATE SET owner = excluded.owner, seen = excluded.seen
            WHERE owner = excluded.owner OR seen <= ?
            """,
            [(*key, wanted.owner, wanted.seen, since) for key in keys],
        )
        self._written += len(keys)
        if self._written >= _SWEEP_EVERY:
            self._written = 0
            self._sweep(connection, wanted.owner, since)
        return _read(connection, keys, since)

    def _sweep(self, connection: sqlite3.Connection, owner: str, since: float) -> None:
        connection.execute("DELETE FROM a2a_ids WHERE seen <= ?", (since,))
        connection.execute(
            """
            DELETE FROM a2a_ids WHERE owner = ? AND seen < (
                SELECT seen FROM a2a_ids WHERE owner = ? ORDER BY seen DESC LIMIT 1 OFFSET ?)
            """,
            (owner, owner, self._most_per_owner - 1),
        )


class _Owned(NamedTuple):
    owner: str
    seen: float


def _read(connection: sqlite3.Connection, keys: Iterable[_Key], since: float) -> dict[_Key, _Owned]:
    found = {}
    for key in keys:
        row = connection.execute(
            "SELECT owner, seen FROM a2a_ids WHERE agent = ? AND kind = ? AND digest = ? AND seen > ?", (*key, since)
        ).fetchone()
        if row is not None:
            found[key] = _Owned(*row)
    return found


def _keys(agent: str, ids: Ids) -> dict[_Key, tuple[Kind, str]]:
    named: list[tuple[Kind, str]] = [("task", name) for name in ids.tasks]
    named += [("context", name) for name in ids.contexts]
    return {
        (agent, kind, hashlib.sha256(name.encode(errors="surrogatepass")).digest()): (kind, name)
        for kind, name in named
    }
