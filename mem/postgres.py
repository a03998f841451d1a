"""Memory in PostgreSQL: drained from each machine's journal, and from then on the record that answers all reads."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import (
    Column,
    Float,
    Index,
    MetaData,
    Select,
    String,
    Table,
    Text,
    and_,
    bindparam,
    delete,
    exists,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import TSVECTOR, insert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.elements import ColumnElement

from store import Database, DatabaseError, Schema

from .cleaning import compact
from .document import document_of, event_of_document, words_of
from .interface import EventQuery, MemoryBackend, MemoryEvent, MemoryRecord, MemoryUnavailable, Owner, Removal, Session
from .reader import floor_of
from .rows import id_of
from .settings import MemorySettings
from .words import phrases_in

SECONDS = 5.0  # What one call may take.
CANDIDATES = 200  # The newest that are ranked.
MOST_PHRASED = 5000  # The newest with all words of a phrase that are looked at for it.
AT_ONCE = 2000  # Rows that one statement removes.
CLOCK_SECONDS = 1.0  # That an event's id and its time may be apart.
MOST_PAGE = 16 * 1024 * 1024  # Characters of a page; what is beyond comes with the next.

_TABLES = MetaData()
_EVENTS = Table(
    "mem_events",
    _TABLES,
    Column("id", String(36, collation="C"), primary_key=True),
    Column("owner", Text(collation="C"), nullable=False),
    Column("at", Float, nullable=False),
    Column("event", String(32), nullable=False),
    Column("session", Text),
    Column("task", Text),
    Column("run", Text),
    Column("model", Text),
    Column("document", Text, nullable=False),
    Column("words", TSVECTOR, nullable=False),
    Index("mem_events_by_owner", "owner", "id"),
    # With the time, so that sessions are listed without a look at their events.
    Index("mem_events_by_session", "owner", "session", "id", postgresql_include=["at"]),
    Index("mem_events_by_task", "owner", "task", "id"),
    # For pages of what a user has little of among very much: without them, all of that is looked at.
    Index("mem_events_by_run", "owner", "run", "id", postgresql_where=text("run IS NOT NULL")),
    Index("mem_events_by_model", "owner", "model", "id", postgresql_where=text("model IS NOT NULL")),
    Index("mem_events_by_event", "owner", "event", "id", postgresql_where=text("event <> 'chat'")),
    Index("mem_events_by_words", "words", postgresql_using="gin"),
)
# Machines that were away bring what they have of a user when he is forgotten already.
_FORGOTTEN = Table(
    "mem_forgotten",
    _TABLES,
    Column("owner", Text(collation="C"), primary_key=True),
    Column("until", String(36, collation="C"), nullable=False),
)
_STEPS = (
    "DROP INDEX mem_events_by_session",
    "CREATE INDEX mem_events_by_session ON mem_events (owner, session, id) INCLUDE (at)",
    "CREATE INDEX mem_events_by_run ON mem_events (owner, run, id) WHERE run IS NOT NULL",
    "CREATE INDEX mem_events_by_model ON mem_events (owner, model, id) WHERE model IS NOT NULL",
    "CREATE INDEX mem_events_by_event ON mem_events (owner, event, id) WHERE event <> 'chat'",
)
_FILTERS = ("session", "task", "run", "event", "model")


_SAID = func.to_tsvector("simple", bindparam("said", type_=Text)).op("||")(
    func.to_tsvector("simple", bindparam("mark", type_=Text))
)
_GIVEN = [bindparam(column.name, type_=column.type) for column in _EVENTS.c if column.name != "words"]
_IS_FORGOTTEN = (
    exists()
    .where(_FORGOTTEN.c.owner == bindparam("owner", type_=Text))
    .where(_FORGOTTEN.c.until >= bindparam("id", type_=Text))
)
_KEEP = (
    insert(_EVENTS)
    .from_select([column.name for column in _EVENTS.c], select(*_GIVEN, _SAID).where(~_IS_FORGOTTEN))
    .on_conflict_do_nothing(index_elements=["id"])
)


class PostgresMemory(MemoryBackend, MemoryRecord):
    """One row for each event, under its own id, found by an index that knows the owner too."""

    def __init__(self, settings: MemorySettings) -> None:
        """Opens nothing. `settings.database_url` must be set. Raises `ImportError` without asyncpg."""
        assert settings.database_url is not None
        if find_spec("asyncpg") is None:
            raise ImportError("asyncpg is not installed: pip install 'attach-dev[postgres]'")
        schema = Schema("memory", _TABLES, _STEPS)
        self._database = Database(Path(), schemas=[schema], url=settings.database_url)
        self._opening: asyncio.Task[None] | None = None

    @property
    def reader(self) -> MemoryRecord:
        return self

    async def __aenter__(self) -> Self:
        await self._database.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        await self._database.__aexit__(kind, value, trace)

    # Keeping

    async def deliver(self, events: Sequence[MemoryEvent]) -> None:
        async with self._writing() as connection:
            await connection.execute(_KEEP, [row_of(event) for event in events])

    async def retain(self, since: str) -> int:
        removed = 0
        while found := await self._remove(_EVENTS.c.id < since):
            removed += found
        return removed

    async def delete(self, removals: Sequence[Removal]) -> None:
        ends = time.monotonic() + SECONDS
        for removal in removals:
            mine = _EVENTS.c.owner == _plain(removal.user)
            if removal.ids is None:
                await self._note_forgotten(removal)
                while await self._remove(and_(mine, _EVENTS.c.id <= removal.until)) == AT_ONCE:
                    if time.monotonic() > ends:
                        raise MemoryUnavailable(retry_after=0)
            else:
                await self._remove(and_(mine, _EVENTS.c.id.in_(removal.ids)))

    async def _note_forgotten(self, removal: Removal) -> None:
        statement = insert(_FORGOTTEN).values(owner=_plain(removal.user), until=removal.until)
        later = func.greatest(_FORGOTTEN.c.until, statement.excluded.until)
        async with self._writing() as connection:
            await connection.execute(statement.on_conflict_do_update(index_elements=["owner"], set_={"until": later}))

    async def _remove(self, which: ColumnElement[bool]) -> int:
        some = select(_EVENTS.c.id).where(which).limit(AT_ONCE)
        async with self._writing() as connection:
            return (await connection.execute(delete(_EVENTS).where(_EVENTS.c.id.in_(some)))).rowcount

    # Reading

    async def events(self, query: EventQuery) -> Sequence[MemoryEvent]:
        statement = _of(query.owner)
        for name in _FILTERS:
            if (value := getattr(query, name)) is not None:
                statement = statement.where(_EVENTS.c[name] == _plain(value))
        if query.before is not None:
            statement = statement.where(_EVENTS.c.id < query.before)
        if query.event not in (None, "chat"):
            statement = statement.where(text("event <> 'chat'"))  # As the index of these events says it.
        if query.since is not None:
            # By time alone, all that is older would be looked at where little is new.
            floor = id_of(floor_of(query.since - CLOCK_SECONDS))
            statement = statement.where(_EVENTS.c.at >= query.since, _EVENTS.c.id >= floor)
        order = _EVENTS.c.id.desc()
        if query.after is not None:
            statement, order = statement.where(_EVENTS.c.id > query.after), _EVENTS.c.id.asc()
        return await self._documents(statement.order_by(order).limit(query.limit))

    async def event(self, owner: Owner, id: str) -> MemoryEvent | None:  # noqa: A002 - as the event calls it
        found = await self._documents(_of(owner).where(_EVENTS.c.id == _plain(id)))
        return found[0] if found else None

    async def search(self, owner: Owner, words: str, *, limit: int) -> Sequence[MemoryEvent]:
        phrases = phrases_in(words)
        if not phrases:
            return ()
        asked: ColumnElement[Any] = func.phraseto_tsquery("simple", " ".join(phrases[0]))
        for phrase in phrases[1:]:
            asked = asked.op("&&")(func.phraseto_tsquery("simple", " ".join(phrase)))
        single = all(len(phrase) == 1 for phrase in phrases)
        most = max(CANDIDATES, limit)
        found = _with_all([word for phrase in phrases for word in phrase], owner, most if single else MOST_PHRASED)
        if not single:  # The index knows of each word where it is, and not what is beside it.
            found = _phrased(found, asked, most)
        best = found.subquery()  # Points are given to these alone: it takes reading all their words.
        points = func.ts_rank(best.c.words, asked)
        return await self._documents(select(best.c.document).order_by(points.desc(), best.c.id.desc()).limit(limit))

    async def count(self, user: str) -> int:
        async with self._reading() as connection:
            rows = await connection.execute(select(func.count()).where(_EVENTS.c.owner == _plain(user)))
        return int(rows.scalar_one())

    async def sessions(self, owner: Owner, *, limit: int, before: float | None = None) -> Sequence[Session]:
        last = func.max(_EVENTS.c.at)
        statement = (
            select(_EVENTS.c.session, func.min(_EVENTS.c.at), last, func.count())
            .where(*_whose(owner), _EVENTS.c.session.is_not(None))
            .group_by(_EVENTS.c.session)
            .order_by(last.desc())
            .limit(limit)
        )
        if before is not None:
            statement = statement.having(last < before)
        async with self._reading() as connection:
            rows = (await connection.execute(statement)).all()
        return [Session(session_id=name, first=first, last=end, events=count) for name, first, end, count in rows]

    async def _documents(self, statement: Select[Any]) -> list[MemoryEvent]:
        found: list[MemoryEvent] = []
        size = 0
        async with self._reading() as connection:
            for (document,) in await connection.execute(statement):
                size += len(document)
                if found and size > MOST_PAGE:
                    break
                found.append(event_of_document(json.loads(document)))
        return found

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with asyncio.timeout(SECONDS):
                await self._opened()
                async with self._database.write() as connection:
                    yield connection
        except (DatabaseError, TimeoutError) as error:
            raise MemoryUnavailable from error

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with asyncio.timeout(SECONDS):
                await self._opened()
                async with self._database.read() as connection:
                    yield connection
        except (DatabaseError, TimeoutError) as error:
            raise MemoryUnavailable from error

    async def _opened(self) -> None:
        """An index that is missing takes longer to make than one call has: it is made behind the calls that fail."""
        if self._opening is None or (self._opening.done() and not _went_well(self._opening)):
            self._opening = asyncio.create_task(self._database.open(), name="memory-database")
        await asyncio.shield(self._opening)


def _went_well(task: asyncio.Task[None]) -> bool:
    return not task.cancelled() and task.exception() is None


def _whose(owner: Owner) -> list[ColumnElement[bool]]:
    whose = [_EVENTS.c.owner == _plain(owner.user)]
    return whose if owner.task is None else [*whose, _EVENTS.c.task == _plain(owner.task)]


def _of(owner: Owner) -> Select[Any]:
    return select(_EVENTS.c.document).where(*_whose(owner))


def _with_all(words: Sequence[str], owner: Owner, most: int) -> Select[Any]:
    """The newest of the owner's that have all of `words`."""
    marked = func.plainto_tsquery("simple", " ".join([*words, _mark(owner.user)]))
    found = (
        select(_EVENTS.c.id, _EVENTS.c.document, _EVENTS.c.words)
        # Not by the index of owners: the marks in that of words say the same, and better.
        .where((_EVENTS.c.owner == _plain(owner.user)).is_(True), _EVENTS.c.words.op("@@")(marked))
        .order_by(_EVENTS.c.id.desc())
        .limit(most)
    )
    return found if owner.task is None else found.where(_EVENTS.c.task == _plain(owner.task))


def _phrased(found: Select[Any], asked: ColumnElement[Any], most: int) -> Select[Any]:
    """The newest of `found` that are as asked for."""
    one = found.subquery()
    return select(one).where(one.c.words.op("@@")(asked)).order_by(one.c.id.desc()).limit(most)


def row_of(event: MemoryEvent) -> dict[str, Any]:
    """What is kept of `event`, with the words that it is found by (`said`) and the mark of its owner."""
    return {
        "id": event.id,
        "owner": _plain(event.user),
        "at": event.timestamp,
        "event": event.event,
        "session": _plain(event.session_id),
        "task": _plain(event.task_id),
        "run": _plain(event.run_id),
        "model": _plain(event.model),
        "document": compact(document_of(event)),
        "said": words_of(event),
        "mark": _mark(event.user),
    }


def _mark(user: str) -> str:
    """A word that only one user's events have."""
    return f"owner{hashlib.sha256(user.encode(errors='replace')).hexdigest()[:24]}"


def _plain(text: Any) -> Any:
    """PostgreSQL's texts have no NUL."""
    return text.replace("\0", "\ufffd") if isinstance(text, str) else text
