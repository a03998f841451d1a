"""Reading memory out of the journal."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from store import Journal, JournalError

from .inbox import backlog_of
from .interface import EventQuery, MemoryEvent, MemoryReader, MemoryUnavailable, Owner, Session
from .rows import LONG_COLUMNS, SELECT, event_of, key_of, owner_of, text_indexed
from .told import Told
from .words import Phrase, everything_in, phrases_in, score, words_in

T = TypeVar("T")

MOST_PAGE_CHARACTERS = 4 * 1024 * 1024
CANDIDATES = 50  # Of what was found the newest: these are read and ranked.
MOST_OF_A_TASK = 2_000
MOST_RANKED_CHARACTERS = 1024 * 1024


class JournalReader(MemoryReader):
    """Answers from this machine's journal."""

    def __init__(self, journal: Journal) -> None:
        self._inbox = backlog_of(journal)

    async def events(self, query: EventQuery) -> Sequence[MemoryEvent]:
        return await self._read(partial(_page, query))

    async def event(self, owner: Owner, id: str) -> MemoryEvent | None:  # noqa: A002 - as the event calls it
        return await self._read(partial(_event, owner, id))

    async def search(self, owner: Owner, words: str, *, limit: int) -> Sequence[MemoryEvent]:
        phrases = phrases_in(words)
        if not phrases:
            return ()
        find = _found if owner.task is None else _found_in_task
        return await self._read(partial(find, owner, phrases, limit))

    async def sessions(self, owner: Owner, *, limit: int, before: float | None = None) -> Sequence[Session]:
        return await self._read(partial(_sessions, owner, limit, before))

    async def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._inbox.read(query)
        except JournalError as error:
            raise MemoryUnavailable(retry_after=1) from error


def page_of(connection: sqlite3.Connection, query: EventQuery) -> list[MemoryEvent]:
    """As `MemoryReader.events`, for a connection to the journal."""
    return _page(query, connection)


def search_in(connection: sqlite3.Connection, owner: Owner, words: str, limit: int) -> list[MemoryEvent]:
    """As `MemoryReader.search`, for a connection to the journal."""
    phrases = phrases_in(words)
    return _found(owner, phrases, limit, connection) if phrases else []


def users_of(connection: sqlite3.Connection) -> list[str]:
    """Everybody of whom something is remembered."""
    rows = connection.execute("SELECT user FROM mem_owners WHERE user IS NOT NULL ORDER BY user")
    return [user for (user,) in rows]


def _page(query: EventQuery, connection: sqlite3.Connection) -> list[MemoryEvent]:
    owner = owner_of(connection, query.owner.user)
    if owner is None:
        return []
    where, values = _conditions(query, owner)
    order = "ASC" if query.after is not None else "DESC"
    rows = connection.execute(
        f"{SELECT} WHERE {where} ORDER BY id {order} LIMIT ?",
        (*values, query.limit),
    )
    return _limited(connection, rows, query.owner.user)


def _conditions(query: EventQuery, owner: int) -> tuple[str, list[Any]]:
    wanted = {
        "id < ?": query.before and key_of(query.before),
        "id > ?": query.after and key_of(query.after),
        "task = ? ": query.owner.task,
        "session = ?": query.session,
        "task = ?": query.task,
        "run = ?": query.run,
        "event = ?": query.event,
        "model = ?": query.model,
        "id >= ?": None if query.since is None else floor_of(query.since),
    }
    given = {condition: value for condition, value in wanted.items() if value is not None}
    where = ["owner = ?", *given]
    if query.event not in (None, "chat"):
        where.append(
            "event <> 'chat'"
        )  # So says the index of these events, and it is used where the query says so too.
    return " AND ".join(where), [owner, *given.values()]


def floor_of(timestamp: float) -> bytes:
    """What no id of that time or later is below."""
    ticks = max(0, min(int(timestamp * 4_096_000), 4096 * (2**48 - 1)))
    milliseconds, fraction = divmod(ticks, 4096)
    return bytes.fromhex(f"{milliseconds:012x}7{fraction:03x}") + bytes(8)


def _limited(connection: sqlite3.Connection, rows: Iterable[Sequence[Any]], user: str) -> list[MemoryEvent]:
    """Events of `rows` until they are enough for an answer; at least one."""
    events: list[MemoryEvent] = []
    told, size = Told(connection), 0
    for row in rows:
        messages, characters = told.up_to(row[2])
        size += characters + sum(len(row[column]) for column in LONG_COLUMNS)
        if events and size > MOST_PAGE_CHARACTERS:
            break
        events.append(event_of(row, user, messages))
    return events


def _event(owner: Owner, id: str, connection: sqlite3.Connection) -> MemoryEvent | None:  # noqa: A002
    number = owner_of(connection, owner.user)
    row = connection.execute(
        f"{SELECT} WHERE owner = ? AND id = ? AND (? IS NULL OR task = ?)",
        (number, key_of(id), owner.task, owner.task),
    ).fetchone()
    return None if row is None else event_of(row, owner.user, Told(connection).up_to(row[2])[0])


def _found(owner: Owner, phrases: Sequence[Phrase], limit: int, connection: sqlite3.Connection) -> list[MemoryEvent]:
    """Of the newest that have all of `phrases`, the best."""
    number = owner_of(connection, owner.user)
    if number is None:
        return []
    asked = " AND ".join([f'owner : "{number}"', *(f'words : "{" ".join(phrase)}"' for phrase in phrases)])
    found = connection.execute(
        "SELECT rowid FROM mem_words WHERE mem_words MATCH ? ORDER BY rowid DESC LIMIT ?",
        (asked, max(CANDIDATES, limit)),
    ).fetchall()
    best = sorted(_scored(connection, [seq for (seq,) in found], phrases), reverse=True)[:limit]
    select = f"{SELECT} WHERE seq = ? AND owner = ?"
    rows = (connection.execute(select, (seq, number)).fetchone() for _, seq in best)
    return _limited(connection, (row for row in rows if row is not None), owner.user)


def _scored(
    connection: sqlite3.Connection, found: Sequence[int], phrases: Sequence[Phrase]
) -> Iterator[tuple[float, int]]:
    """Points for each of `found`; once much was read, none for the rest."""
    size = 0
    for seq in found:
        points = 0.0
        if size < MOST_RANKED_CHARACTERS and (text := text_indexed(connection, seq)) is not None:
            size += len(text)
            points = score(words_in(text), phrases)
        yield points, seq


def _found_in_task(
    owner: Owner, phrases: Sequence[Phrase], limit: int, connection: sqlite3.Connection
) -> list[MemoryEvent]:
    events = _page(EventQuery(owner=owner, limit=MOST_OF_A_TASK), connection)
    scored = [(score(everything_in(event), phrases), event.id, event) for event in events]
    return [event for points, _, event in sorted(scored, key=lambda one: one[:2], reverse=True) if points][:limit]


def _sessions(owner: Owner, limit: int, before: float | None, connection: sqlite3.Connection) -> list[Session]:
    number = owner_of(connection, owner.user)
    if number is None:
        return []
    if owner.task is not None:
        return _sessions_of_task(connection, number, owner.task)[:limit]
    # From one session to the next, without a look at the events between.
    names = connection.execute(
        """
        WITH RECURSIVE names (session) AS (
            SELECT MIN(session) FROM mem_events WHERE owner = ?1
            UNION ALL
            SELECT (SELECT MIN(session) FROM mem_events WHERE owner = ?1 AND session > names.session)
            FROM names WHERE session IS NOT NULL
        )
        SELECT session, (
            SELECT at FROM mem_events e WHERE owner = ?1 AND e.session = names.session ORDER BY id DESC LIMIT 1
        ) AS last
        FROM names WHERE session IS NOT NULL AND (?2 IS NULL OR last < ?2) ORDER BY last DESC LIMIT ?3
        """,
        (number, before, limit),
    ).fetchall()
    summary = (
        "SELECT COUNT(*), (SELECT at FROM mem_events WHERE owner = ?1 AND session = ?2 ORDER BY id LIMIT 1)"
        " FROM mem_events WHERE owner = ?1 AND session = ?2"
    )
    sessions = []
    for name, last in names:
        count, first = connection.execute(summary, (number, name)).fetchone()
        sessions.append(Session(session_id=name, first=first, last=last, events=count))
    return sessions


def _sessions_of_task(connection: sqlite3.Connection, owner: int, task: str) -> list[Session]:
    rows = connection.execute(
        "SELECT session, MIN(at), MAX(at), COUNT(*) FROM mem_events"
        " WHERE owner = ? AND task = ? AND session IS NOT NULL GROUP BY session ORDER BY MAX(at) DESC",
        (owner, task),
    )
    return [Session(session_id=name, first=first, last=last, events=count) for name, first, last, count in rows]
