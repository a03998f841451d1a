"""Reading the record waits for no writer, sees what was written, and writes nothing."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from store import Journal, JournalError
from store.reader import MOST_WAITING, THREADS


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with Journal(tmp_path) as journal:
        yield journal


def insert(key: str, connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO once VALUES ('jti', ?, '', 4e9)", (key,))


def keys(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT key FROM once ORDER BY key")]


async def test_what_was_written_is_read(journal: Journal) -> None:
    for number in range(20):
        await journal.write(lambda connection, key=str(number): insert(key, connection))  # type: ignore[misc]
        assert len(await journal.read(keys)) == number + 1


async def test_a_read_does_not_wait_for_a_change_that_is_being_made(journal: Journal) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        insert("a", connection)
        begun.set()
        go_on.wait(30)

    writing = asyncio.create_task(journal.write(slow))
    await asyncio.to_thread(begun.wait, 30)
    assert await journal.read(keys) == []
    go_on.set()
    await writing
    assert await journal.read(keys) == ["a"]


async def test_a_query_sees_one_state_from_its_first_statement_to_its_last(journal: Journal) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def twice(connection: sqlite3.Connection) -> tuple[list[str], list[str]]:
        first = keys(connection)
        begun.set()
        go_on.wait(30)
        return first, keys(connection)

    reading = asyncio.create_task(journal.read(twice))
    await asyncio.to_thread(begun.wait, 30)
    await journal.write(lambda connection: insert("a", connection))
    go_on.set()
    assert await reading == ([], [])


async def test_a_query_cannot_write(journal: Journal) -> None:
    with pytest.raises(JournalError, match="cannot be read"):
        await journal.read(lambda connection: insert("a", connection))
    assert await journal.read(keys) == []


async def test_what_a_query_raises_is_raised_where_it_was_asked(journal: Journal) -> None:
    def wrong(connection: sqlite3.Connection) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await journal.read(wrong)
    assert await journal.read(keys) == []


def forever(connection: sqlite3.Connection) -> None:
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"
    ).fetchone()


async def test_a_query_that_nobody_waits_for_is_broken_off(journal: Journal) -> None:
    for _ in range(THREADS + 1):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await journal.read(forever)
    assert await journal.read(keys) == []


async def test_one_long_query_leaves_room_for_another(journal: Journal) -> None:
    long = asyncio.create_task(journal.read(forever))
    await asyncio.sleep(0)
    assert await journal.read(keys) == []
    assert not long.done()
    long.cancel()
    await asyncio.gather(long, return_exceptions=True)


async def test_closing_breaks_off_what_is_read_and_leaves_no_thread(tmp_path: Path) -> None:
    async with Journal(tmp_path) as journal:
        reads = [asyncio.create_task(journal.read(forever)) for _ in range(THREADS + 2)]
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*reads, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [JournalError] * (THREADS + 2)
    assert not any(thread.name.startswith("journal") for thread in threading.enumerate())
    with pytest.raises(JournalError, match="not open"):
        await journal.read(keys)
    async with journal:
        assert await journal.read(keys) == []


async def test_no_more_waits_to_be_read_than_fits(journal: Journal) -> None:
    reads = [asyncio.create_task(journal.read(forever)) for _ in range(MOST_WAITING + THREADS)]
    await asyncio.sleep(0.01)
    more = [asyncio.create_task(journal.read(keys)) for _ in range(THREADS + 1)]
    outcomes, _ = await asyncio.wait(more, timeout=5, return_when=asyncio.FIRST_EXCEPTION)
    assert any(isinstance(task.exception(), JournalError) for task in outcomes)
    for task in (*reads, *more):
        task.cancel()
    await asyncio.gather(*reads, *more, return_exceptions=True)
