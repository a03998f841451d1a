"""Memory whose record is PostgreSQL: drained from the journal, read as one, forgotten in both."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from mem import EventQuery, Memory, MemorySettings, Owner
from mem.postgres import PostgresMemory
from store import Journal
from tests.mem.backends import event, somebody
from tests.postgres import serve_postgres
from tests.requirements import require


@asynccontextmanager
async def open_memory(directory: Path, url: str, retention_days: int = 0) -> AsyncIterator[Memory]:
    settings = MemorySettings(backend="postgres", database_url=url, retention_days=retention_days)
    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(Journal(directory))
        yield await stack.enter_async_context(Memory(settings, journal, backend=PostgresMemory(settings)))


def in_journal(directory: Path) -> int:
    connection = sqlite3.connect(directory / "journal.sqlite")
    try:
        (count,) = connection.execute(
            "SELECT (SELECT COUNT(*) FROM mem_events) + (SELECT COUNT(*) FROM outbox)"
        ).fetchone()
    finally:
        connection.close()
    return int(count)


async def drained(directory: Path) -> None:
    for _ in range(600):
        if not in_journal(directory):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("The journal keeps its events")


async def answers(memory: Memory, user: str, **asked: object) -> list[str]:
    query = EventQuery(owner=Owner(user=user), **asked)  # type: ignore[arg-type]
    return [one.answer for one in await memory.events(query)]


async def test_events_leave_the_journal_and_are_read_as_before(tmp_path: Path, database_url: str) -> None:
    user = somebody()
    async with open_memory(tmp_path, database_url) as memory:
        kept = [event(user, f"answer {n}", at=1_700_000_000.0 + n, session_id=f"s{n % 2}") for n in range(7)]
        await memory.add(*kept)
        assert await answers(memory, user) == [f"answer {n}" for n in reversed(range(7))]
        await drained(tmp_path)
        assert await answers(memory, user) == [f"answer {n}" for n in reversed(range(7))]
        assert await answers(memory, user, limit=2, before=kept[4].id) == ["answer 3", "answer 2"]
        assert await answers(memory, user, limit=2, after=kept[4].id) == ["answer 5", "answer 6"]
        assert await answers(memory, user, session="s1", since=1_700_000_003.0) == ["answer 5", "answer 3"]
        assert await memory.event(Owner(user=user), kept[0].id) == kept[0]
        assert [one.answer async for one in memory.export(Owner(user=user))] == [f"answer {n}" for n in range(7)]
        sessions = await memory.sessions(Owner(user=user), limit=10)
        assert [(one.session_id, one.events, one.last) for one in sessions] == [
            ("s0", 4, 1_700_000_006.0),
            ("s1", 3, 1_700_000_005.0),
        ]


async def test_what_is_on_its_way_is_read_with_what_has_arrived(tmp_path: Path, database_url: str) -> None:
    user = somebody()
    async with open_memory(tmp_path / "one", database_url) as one, open_memory(tmp_path / "two", database_url) as two:
        await one.add(event(user, "red one", at=1_700_000_001.0), event(user, "red three", at=1_700_000_003.0))
        await drained(tmp_path / "one")
        await two.add(event(user, "red two", at=1_700_000_002.0))
        assert await answers(two, user) == ["red three", "red two", "red one"]
        assert sorted(e.answer for e in await two.search(Owner(user=user), "red", limit=5)) == [
            "red one",
            "red three",
            "red two",
        ]
        await drained(tmp_path / "two")
        assert await answers(one, user) == ["red three", "red two", "red one"]


async def test_another_machine_deletes_and_forgets_it_too(tmp_path: Path, database_url: str) -> None:
    user, other = somebody(), somebody()
    async with open_memory(tmp_path / "one", database_url) as one, open_memory(tmp_path / "two", database_url) as two:
        first, second = event(user, "first"), event(user, "second")
        await one.add(first, second, event(other, "other"))
        await drained(tmp_path / "one")
        assert await two.delete(Owner(user=other), first.id) is False
        assert await two.delete(Owner(user=user), first.id) is True
        assert await answers(one, user) == ["second"]
        assert await two.forget(user) == 1
        assert await answers(one, user) == []
        assert await answers(one, other) == ["other"]


async def test_what_a_machine_brings_of_a_user_who_was_forgotten_meanwhile_is_let_go(
    tmp_path: Path, database_url: str
) -> None:
    user = somebody()
    settings = MemorySettings(backend="postgres", database_url="postgresql+asyncpg://nobody@127.0.0.1:1/none")
    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(Journal(tmp_path / "away"))
        away = await stack.enter_async_context(Memory(settings, journal, backend=PostgresMemory(settings)))
        await away.add(event(user, "before"))
    async with open_memory(tmp_path / "here", database_url) as here:
        await here.forget(user)
        async with open_memory(tmp_path / "away", database_url) as back:
            await back.add(event(user, "after", at=4_000_000_000.0))
            await drained(tmp_path / "away")
            assert await answers(back, user) == ["after"]
        assert await answers(here, user) == ["after"]


async def test_what_is_too_old_leaves_the_record_too(tmp_path: Path, database_url: str) -> None:
    user = somebody()
    async with open_memory(tmp_path, database_url) as memory:
        await memory.add(event(user, "old", at=1_000_000_000.0), event(user, "new", at=4_000_000_000.0))
        await drained(tmp_path)
    async with open_memory(tmp_path, database_url, retention_days=30) as memory:
        for _ in range(600):
            if await answers(memory, user) == ["new"]:
                return
            await asyncio.sleep(0.05)
    raise AssertionError("What is too old is still there")


async def test_words_in_quotation_marks_are_found_side_by_side_in_the_record(tmp_path: Path, database_url: str) -> None:
    user = somebody()
    async with open_memory(tmp_path, database_url) as memory:
        said = ("sea grass and more", "grass of the sea", "a sea grass meadow", "sea, and grass")
        await memory.add(*(event(user, words, messages=()) for words in said), event(somebody(), "sea grass"))
        await drained(tmp_path)
        for asked in ('"sea grass"', 'more "sea grass"', "sea grass"):
            found = {one.answer for one in await memory.search(Owner(user=user), asked, limit=10)}
            all_of = asked.replace('"', "").split()
            expected = {words for words in said if all(word in words for word in all_of)}
            assert found == {words for words in expected if '"' not in asked or "sea grass" in words}


async def test_a_database_of_the_version_before_is_brought_to_this_one() -> None:
    require("asyncpg", find_spec("asyncpg") is not None, "asyncpg is not installed: script/setup dev,postgres")
    listed = text("SELECT indexname, indexdef FROM pg_indexes WHERE tablename LIKE 'mem%' ORDER BY indexname")
    async with serve_postgres() as url:
        settings = MemorySettings(database_url=url)
        user = somebody()
        async with PostgresMemory(settings) as memory:
            await memory.deliver([event(user, "kept")])
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            made = (await connection.execute(listed)).all()
            for name in ("run", "model", "event", "session"):
                await connection.execute(text(f"DROP INDEX mem_events_by_{name}"))
            await connection.execute(text("CREATE INDEX mem_events_by_session ON mem_events (owner, session, id)"))
            await connection.execute(text("UPDATE attach_schema SET version = 1 WHERE part = 'memory'"))
        async with PostgresMemory(settings) as memory:
            assert [one.answer for one in await memory.search(Owner(user=user), "kept", limit=1)] == ["kept"]
        async with engine.connect() as connection:
            assert (await connection.execute(listed)).all() == made
        await engine.dispose()
