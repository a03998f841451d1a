"""A store that the benchmark filled is the one that the gateway would have made of the same events."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from bench.bulk import fill_journal
from bench.bulk_postgres import fill_postgres
from bench.talk import Talk
from mem import EventQuery, Memory, MemoryEvent, MemoryReader, MemorySettings, Owner
from mem.postgres import PostgresMemory
from store import Journal
from tests.mem.contract import full_event
from tests.postgres import serve_postgres
from tests.requirements import require

PLAIN = MemorySettings(retention_days=0)
USERS = 6


@pytest.fixture(scope="module")
def talk() -> Talk:
    return Talk(USERS)


@pytest.fixture(scope="module")
def events(talk: Talk) -> list[MemoryEvent]:
    """Chats, and among them what few events have."""
    made = list(talk.events(400))
    twice = replace(full_event(), user=talk.users[1], messages=made[9].messages * 2, request_id="twice")
    odd = [replace(full_event(), user=talk.heavy), twice, replace(full_event(), messages=(), user="somebody")]
    return [*made[:200], *odd, *made[200:]]


async def filled(directory: Path, events: Sequence[MemoryEvent], key: bytes) -> None:
    """As a gateway does it, some events at a time."""
    async with Journal(directory) as journal:
        await journal.write(lambda connection: connection.execute("UPDATE mem_key SET key = ?", (key,)))
        memory = Memory(PLAIN, journal)
        for start in range(0, len(events), 10):
            await memory.add(*events[start : start + 10])
            await memory.catch_up()


def everything_in(directory: Path) -> dict[str, list[Any]]:
    """Every table of memory's and every word of the index, and what the file is made of."""
    connection = sqlite3.connect(directory / "journal.sqlite")
    try:
        connection.execute("CREATE VIRTUAL TABLE temp.terms USING fts5vocab (main, mem_words, instance)")
        found = {
            "schema": "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite%' ORDER BY name",
            "sequences": "SELECT name, seq FROM sqlite_sequence ORDER BY name",
            "terms": "SELECT * FROM terms ORDER BY doc, col, offset",
            "sound": "PRAGMA integrity_check",
            "version": "PRAGMA user_version",
            "mode": "PRAGMA journal_mode",
            "owners": "SELECT * FROM mem_owners ORDER BY owner",
            "messages": "SELECT * FROM mem_messages ORDER BY message",
            "turns": "SELECT * FROM mem_turns ORDER BY turn",
            "events": "SELECT * FROM mem_events ORDER BY seq",
            "indexed": "SELECT * FROM mem_indexed",
        }
        return {name: connection.execute(sql).fetchall() for name, sql in found.items()}
    finally:
        connection.close()


async def answers(reader: MemoryReader, talk: Talk) -> list[Any]:
    """What is found, listed and paged of every user."""
    found: list[Any] = []
    for owner in (Owner(user=user) for user in talk.users):
        asked = (*talk.words[:30:3], *talk.words[1000:3000:100], f"{talk.words[2]} {talk.words[5]}", "jellyfish")
        found += [await reader.search(owner, words, limit=20) for words in asked]
        found.append(await reader.events(EventQuery(owner=owner, limit=1000)))
        found.append(await reader.sessions(owner, limit=100))
    return found


async def test_a_journal_is_filled_as_a_gateway_fills_it(tmp_path: Path, talk: Talk, events: list[MemoryEvent]) -> None:
    key = bytes(range(32))
    await filled(tmp_path / "slow", events, key)
    await filled(tmp_path / "quick", [], key)
    assert await fill_journal(tmp_path / "quick", partial(list, events), left=50) == len(events)
    slow, quick = everything_in(tmp_path / "slow"), everything_in(tmp_path / "quick")
    assert quick == slow
    assert len(quick["terms"]) > 40_000
    async with Journal(tmp_path / "slow") as one, Journal(tmp_path / "quick") as other:
        expected = await answers(Memory(PLAIN, one).record, talk)
        assert await answers(Memory(PLAIN, other).record, talk) == expected
        assert any(found for found in expected[:30])


async def in_database(url: str) -> dict[str, list[Any]]:
    engine = create_async_engine(url)
    asked = {
        "events": "SELECT id, owner, at, event, session, task, run, model, document FROM mem_events ORDER BY id",
        "words": "SELECT words::text FROM mem_events ORDER BY id",
        "indexes": "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'mem_events' ORDER BY 1",
        "keys": "SELECT conname, contype::text FROM pg_constraint WHERE conrelid = 'mem_events'::regclass ORDER BY 1",
    }
    async with engine.connect() as connection:
        found = {name: [tuple(row) for row in await connection.execute(text(sql))] for name, sql in asked.items()}
    await engine.dispose()
    return found


async def test_a_database_is_filled_as_a_gateway_fills_it(talk: Talk, events: list[MemoryEvent]) -> None:
    require("asyncpg", find_spec("asyncpg") is not None, "asyncpg is not installed: script/setup dev,postgres")
    async with serve_postgres() as url:
        async with PostgresMemory(MemorySettings(database_url=url)) as memory:
            await memory.deliver(events)
            expected = await answers(memory, talk)
        slow = await in_database(url)
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            await connection.execute(text("TRUNCATE mem_events"))
        await engine.dispose()
        assert await fill_postgres(url, partial(list, events)) == len(events)
        assert await in_database(url) == slow
        async with PostgresMemory(MemorySettings(database_url=url)) as memory:
            assert await answers(memory, talk) == expected
    assert any(found for found in expected[:30])
