"""What is put off is done for many at a time, soon, and before anybody could miss it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from store import Backlog, Journal, JournalError
from store.backlog import MOST_PUT_OFF


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with Journal(tmp_path) as journal:
        await journal.write(lambda c: c.execute("CREATE TABLE short (n INTEGER)"))
        await journal.write(lambda c: c.execute("CREATE TABLE long (n INTEGER, portion INTEGER)"))
        yield journal


class Sums:
    """Moves numbers from one table to the other, and counts how often there were any."""

    def __init__(self, journal: Journal, *, longest: float = 0.02) -> None:
        self.journal = journal
        self.backlog = Backlog(journal, waits=self._waits, work=self._work, longest=longest, pause=0.01)
        self.portions: list[int] = []
        self.fails = 0

    @staticmethod
    def _waits(connection: sqlite3.Connection) -> bool:
        return connection.execute("SELECT 1 FROM short").fetchone() is not None

    def _work(self, connection: sqlite3.Connection) -> int:
        if self.fails:
            self.fails -= 1
            raise KeyError
        connection.execute("INSERT INTO long SELECT n, ? FROM short", (len(self.portions),))
        done = connection.execute("DELETE FROM short").rowcount
        if done:
            self.portions.append(done)
        return done

    async def add(self, *numbers: int) -> None:
        def put(connection: sqlite3.Connection) -> None:
            for number in numbers:
                connection.execute("INSERT INTO short VALUES (?)", (number,))
                self.backlog.grew()

        await self.journal.write(put)

    async def done(self) -> list[int]:
        return await self.journal.read(lambda c: [n for (n,) in c.execute("SELECT n FROM long ORDER BY rowid")])

    async def until(self, wanted: int) -> None:
        async with asyncio.timeout(20):
            while len(await self.done()) < wanted:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)


async def test_a_read_sees_what_was_written_before_it_and_others_do_not_wait_for_it(journal: Journal) -> None:
    sums = Sums(journal)
    await sums.add(1, 2)
    assert await sums.done() == []
    assert await sums.backlog.read(lambda c: c.execute("SELECT COUNT(*) FROM long").fetchone()) == (2,)
    assert await sums.done() == [1, 2]


async def test_it_is_done_after_a_moment_by_itself_and_again_and_again(journal: Journal) -> None:
    sums = Sums(journal)
    async with sums.backlog:
        for number in range(3):
            await sums.add(number)
            await sums.until(number + 1)
    assert await sums.done() == [0, 1, 2]


async def test_much_is_done_without_waiting_for_the_moment(journal: Journal) -> None:
    sums = Sums(journal, longest=3600.0)
    async with sums.backlog:
        await sums.add(*range(MOST_PUT_OFF - 1))
        await sums.add(*range(MOST_PUT_OFF - 1, 2 * MOST_PUT_OFF))
        await sums.until(MOST_PUT_OFF)
    assert await sums.done() == list(range(2 * MOST_PUT_OFF))


async def test_what_a_process_left_is_done_by_the_next_as_it_opens(journal: Journal) -> None:
    await Sums(journal).add(1)
    sums = Sums(journal)
    async with sums.backlog:
        await sums.until(1)


async def test_nothing_waits_any_more_once_it_is_closed(journal: Journal) -> None:
    sums = Sums(journal, longest=3600.0)
    async with sums.backlog:
        await sums.add(1, 2, 3)
    assert await sums.done() == [1, 2, 3]
    await sums.add(4)  # Somebody is late.
    await sums.backlog.catch_up()
    assert await sums.done() == [1, 2, 3, 4]


async def test_work_that_fails_is_tried_again(journal: Journal) -> None:
    sums = Sums(journal)
    sums.fails = 4
    async with sums.backlog:
        await sums.add(1)
        await sums.until(1)


async def test_who_cannot_be_shown_everything_is_shown_nothing(journal: Journal) -> None:
    sums = Sums(journal)
    await sums.add(1)
    await journal.write(lambda c: c.execute("PRAGMA query_only = ON"))
    with pytest.raises(JournalError):
        await sums.backlog.read(lambda c: c.execute("SELECT COUNT(*) FROM long").fetchone())
