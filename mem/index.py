"""The full-text index: kept up behind the answers, from where it stands to where the events are."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from functools import partial
from typing import Self

from store import Journal, JournalError

from .ahead import look_ahead, mark_of, put_in_all
from .words import VERSION, indexed

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0
FAULT_PAUSE_SECONDS = 5.0
LINGER_SECONDS = 0.5  # A search does not wait for it.
GIVEN_BACK = 0.7  # of the time taken
MERGED_PAGES = 200


class Indexer:
    """Puts events into the index: an async context manager that runs one task.

    How far the index goes is written with it in one commit, so that whatever ends a process, the next one goes on
    exactly there. Several workers may run one each: an event is put in once.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="memory-index")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def wake(self) -> None:
        """Say that there is something new."""
        self._news.set()

    async def catch_up(self) -> None:
        """Return once everything that is kept by now can be found. Raises `JournalError`."""
        if not await self._journal.read(_is_of_this_version):
            await self._journal.write(_begin_anew)
        while await self._advance():
            pass

    async def tidy(self) -> None:
        """Have the index write itself anew where it still holds words of what was removed. Raises `JournalError`."""
        if await self._journal.read(_is_tidy):
            return
        pages = -MERGED_PAGES  # The first time, all of it is taken together.
        while await self._journal.write(partial(_merge, pages)):
            pages = MERGED_PAGES

    async def _run(self) -> None:
        while True:
            try:
                await self.catch_up()
                await self.tidy()
                await self._wait_for_news()
            except JournalError as error:
                logger.warning("memory.index_stalled", extra={"error": str(error)})
                await asyncio.sleep(FAULT_PAUSE_SECONDS)
            except Exception:
                logger.exception("memory.index_failed")
                await asyncio.sleep(FAULT_PAUSE_SECONDS)

    async def _wait_for_news(self) -> None:
        # Other workers write events too, and wake nobody here.
        try:
            async with asyncio.timeout(PAUSE_SECONDS):
                await self._news.wait()
        except TimeoutError:
            return
        self._news.clear()
        await asyncio.sleep(LINGER_SECONDS)

    async def _advance(self) -> bool:
        """Put a few more events in. False: there were none."""
        ahead = await self._journal.read(look_ahead)
        if ahead is None:
            return False
        held_up, begun_at = self._journal.held_up, time.monotonic()
        await self._journal.write(partial(put_in_all, ahead))
        if self._journal.held_up != held_up:  # Answers wait for the writer: some of the time is theirs.
            await asyncio.sleep(min(GIVEN_BACK * (time.monotonic() - begun_at), PAUSE_SECONDS))
        return True


def take_out(connection: sqlite3.Connection, owner: int, seq: int, text: str) -> None:
    """Take an event out of the index, if it is in it. `text` is what `text_indexed` gave when it was put in."""
    if seq <= mark_of(connection):
        connection.execute(
            "INSERT INTO mem_words (mem_words, rowid, owner, words) VALUES ('delete', ?, ?, ?)",
            (seq, str(owner), indexed(text)),
        )
        connection.execute("UPDATE mem_indexed SET tidy = 0")


def put_in(connection: sqlite3.Connection, owner: int, seq: int, text: str) -> None:
    """Put an event into the index, if its turn was already."""
    if seq <= mark_of(connection):
        _insert(connection, owner, seq, indexed(text))


def _insert(connection: sqlite3.Connection, owner: int, seq: int, words: str) -> None:
    connection.execute("INSERT INTO mem_words (rowid, owner, words) VALUES (?, ?, ?)", (seq, str(owner), words))


def _is_of_this_version(connection: sqlite3.Connection) -> bool:
    (version,) = connection.execute("SELECT version FROM mem_indexed").fetchone()
    return bool(version == VERSION)


def _begin_anew(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO mem_words (mem_words) VALUES ('delete-all')")
    connection.execute("UPDATE mem_indexed SET version = ?, seq = 0, tidy = 1", (VERSION,))


def _is_tidy(connection: sqlite3.Connection) -> bool:
    (tidy,) = connection.execute("SELECT tidy FROM mem_indexed").fetchone()
    return bool(tidy)


def _merge(pages: int, connection: sqlite3.Connection) -> bool:
    """Write a part of the index anew, without what was taken out. False once all of it is (FTS5 manual §6.8)."""
    connection.execute("INSERT INTO mem_words (mem_words, rank) VALUES ('usermerge', 2)")
    before = connection.total_changes
    connection.execute("INSERT INTO mem_words (mem_words, rank) VALUES ('merge', ?)", (pages,))
    if connection.total_changes - before >= 2:
        return True
    connection.execute("UPDATE mem_indexed SET tidy = 1")
    return False
