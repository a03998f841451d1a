"""A journal full of events in a fraction of the time: the rows that the gateway would have written, many at a time."""

from __future__ import annotations

import contextlib
import itertools
import operator
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mem import Memory, MemoryEvent, MemorySettings
from mem.cleaning import Cleaner, compact
from mem.history import Digests, Turn, write_bodies
from mem.redact import at_once
from mem.rows import key_of
from mem.words import indexed, text_of_event, text_of_message
from store import Journal

from .elsewhere import made_elsewhere

BATCH = 2_000
LEFT_TO_THE_INDEXER = 5_000
CACHE_KIB = 1_000_000
_COLUMNS = {  # Of mem_events, beside the four numbers, by what an event has.
    "at": "timestamp",
    "event": "event",
    "session": "session_id",
    "request": "request_id",
    "task": "task_id",
    "run": "run_id",
    "agent": "agent",
    "project": "project",
    "model": "model",
    "path": "path",
    "answer": "answer",
    "reasoning": "reasoning",
    "text": "text",
    "state": "state",
    "tokens_in": "tokens_in",
    "tokens_out": "tokens_out",
    "latency": "latency",
}
_EVENT = ("seq", "owner", "turn", "fresh", "id", "tool_calls", "fields", *_COLUMNS)
_TABLES = {
    "owners": "mem_owners (owner, user)",
    "messages": "mem_messages (message, owner, hash, body)",
    "turns": "mem_turns (turn, owner, hash, parent, message)",
    "events": f"mem_events ({', '.join(_EVENT)})",
    "words": "mem_words (rowid, owner, words)",
}
_of_event = operator.attrgetter(*_COLUMNS.values())


@dataclass(slots=True)
class Rows:
    """What a batch of events adds to each table."""

    owners: list[tuple[int, str]] = field(default_factory=list)
    messages: list[tuple[int, int, bytes, str | None]] = field(default_factory=list)
    turns: list[tuple[int, int, bytes, int | None, int]] = field(default_factory=list)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    words: list[tuple[int, str, str]] = field(default_factory=list)


class Numbering:
    """Makes rows as `mem.rows.keep` would, knowing what is there without a look. For harmless text: it redacts none."""

    def __init__(self, key: bytes) -> None:
        self._digests = Digests(key)
        self._cleaner = Cleaner(None)
        self._owners: dict[str, int] = {}
        self._messages: dict[bytes, int] = {}  # By digest and owner.
        self._turns: dict[bytes, int] = {}
        self._seq = 0

    def rows_of(self, events: Iterable[MemoryEvent]) -> Rows:
        rows = Rows()
        for event in events:
            self._add(event, rows)
        return rows

    def _add(self, event: MemoryEvent, rows: Rows) -> None:
        owner = self._owners.get(event.user)
        if owner is None:
            owner = self._owners[event.user] = len(self._owners) + 1
            rows.owners.append((owner, event.user))
        fresh: list[int] = []
        bodies: list[str] = []
        turn = self._add_turns(owner, at_once(self._digests.turns(event.user, event.messages)), rows, fresh, bodies)
        self._seq += 1
        rows.events.append((self._seq, owner, turn, compact(fresh), *_values(event)))
        said = text_of_event(
            event.answer, event.reasoning, compact(event.tool_calls), event.text, compact(event.fields)
        )
        rows.words.append((self._seq, str(owner), indexed("\n".join([said, *map(text_of_message, bodies)]))))

    def _add_turns(
        self, owner: int, turns: Sequence[Turn], rows: Rows, fresh: list[int], bodies: list[str]
    ) -> int | None:
        mark = owner.to_bytes(4, "big")
        known = len(turns)
        while known and turns[known - 1].chain + mark not in self._turns:
            known -= 1
        last = self._turns[turns[known - 1].chain + mark] if known else None
        for turn in turns[known:]:
            message = self._messages.get(turn.content + mark)
            if message is None:
                at_once(write_bodies([turn], self._cleaner))
                assert turn.body is not None
                message = self._messages[turn.content + mark] = len(self._messages) + 1
                rows.messages.append((message, owner, turn.content, turn.body))
                fresh.append(message)
                bodies.append(turn.body)
            number = self._turns[turn.chain + mark] = len(self._turns) + 1
            rows.turns.append((number, owner, turn.chain, last, message))
            last = number
        return last


def _values(event: MemoryEvent) -> tuple[Any, ...]:
    return (key_of(event.id), compact(event.tool_calls), compact(event.fields), *_of_event(event))


async def fill_journal(
    directory: Path, make: Callable[[], Iterable[MemoryEvent]], *, left: int = LEFT_TO_THE_INDEXER
) -> int:
    """Make a journal in `directory` with the events that `make` gives in another process. Returns how many.

    Of the newest, `left` are put into the index by the gateway's own indexer, so that it ends as it does there. Until
    this has returned it is no journal: what interrupts it leaves nothing that could be used.
    """
    async with Journal(directory) as journal:
        key = await journal.read(_key_of)
        await journal.shrink()
    with contextlib.closing(sqlite3.connect(journal.path, isolation_level=None)) as connection:
        count = _write(connection, made_elsewhere(partial(_rows, make, key)), left)
    async with Journal(directory) as journal:
        await Memory(MemorySettings(retention_days=0), journal).catch_up()
        await journal.shrink()
    return count


def _key_of(connection: sqlite3.Connection) -> bytes:
    (key,) = connection.execute("SELECT key FROM mem_key").fetchone()
    return bytes(key)


def _rows(make: Callable[[], Iterable[MemoryEvent]], key: bytes) -> Iterator[Rows]:
    numbering, events = Numbering(key), iter(make())
    while batch := list(itertools.islice(events, BATCH)):
        yield numbering.rows_of(batch)


def _write(connection: sqlite3.Connection, batches: Iterable[Rows], left: int) -> int:
    """Write all rows, and then the indexes."""
    for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}"):
        connection.execute(f"PRAGMA {pragma}")
    indexes = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND name LIKE 'mem_%' AND sql IS NOT NULL"
    ).fetchall()
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    waiting: list[tuple[int, str, str]] = []
    for rows in batches:
        waiting += rows.words
        rows.words, waiting = waiting[:-left], waiting[-left:]
        _insert(connection, rows)
    for _, sql in indexes:
        connection.execute(sql)
    (count,) = connection.execute("SELECT COUNT(*) FROM mem_events").fetchone()
    return int(count)


def _insert(connection: sqlite3.Connection, rows: Rows) -> None:
    connection.execute("BEGIN")
    for name, into in _TABLES.items():
        found: list[tuple[Any, ...]] = getattr(rows, name)
        if found:
            connection.executemany(f"INSERT INTO {into} VALUES ({', '.join('?' * len(found[0]))})", found)
    if rows.words:
        connection.execute("UPDATE mem_indexed SET seq = ?", (rows.words[-1][0],))
    connection.execute("COMMIT")
