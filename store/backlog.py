"""What is written down in short while answers wait, and put where it belongs behind them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any, Self, TypeVar

from .changes import JournalError
from .journal import Journal

logger = logging.getLogger(__name__)

T = TypeVar("T")

MOST_PUT_OFF = 1024  # For so many the writer is busy for some hundredths of a second, and nobody else may be.


class Backlog:
    """Has `work` done for many changes at a time, and always before somebody reads what it leads to.

    What waits is in the journal's file: whoever shares it may do the work, and whatever ends a process, the next one
    does it. An async context manager that runs one task; where it is not open, only `read` and `catch_up` do any.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        waits: Callable[[sqlite3.Connection], bool],
        work: Callable[[sqlite3.Connection], int],
        longest: float = 0.5,
        pause: float = 5.0,
    ) -> None:
        """Opens nothing.

        Args:
            waits: Whether there is work, for a connection that cannot write.
            work: Does all of it, and returns how much that was.
            longest: Seconds for which a little may wait.
            pause: Seconds after work that could not be done.
        """
        self._journal = journal
        self._waits = waits
        self._work = work
        self._longest = longest
        self._pause = pause
        self._added = 0  # Since the work was done last, about: threads that write count without a lock.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._much = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run(), name="journal-backlog")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        with contextlib.suppress(JournalError, sqlite3.Error):  # The next process does it.
            await self.catch_up()

    def grew(self) -> None:
        """Say, within a change, that it makes work."""
        self._added = added = self._added + 1
        if added in (1, MOST_PUT_OFF) and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # The loop is gone.
                self._loop.call_soon_threadsafe((self._news if added == 1 else self._much).set)

    async def catch_up(self) -> None:
        """Have everything done that waits by now. Raises `JournalError`."""
        if await self._journal.read(self._waits):
            await self._journal.write(self._work)

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """As `Journal.read`, of a state in which everything is done that waited before this was called."""
        done, found = await self._journal.read(partial(self._unless_it_waits, query))
        if done:
            result: T = found
            return result
        await self._journal.write(self._work)
        return await self._journal.read(query)

    def _unless_it_waits(self, query: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> Any:
        return (False, None) if self._waits(connection) else (True, query(connection))

    async def _run(self) -> None:
        while True:
            self._news.clear()
            self._much.clear()
            self._added = 0
            try:
                done = await self._journal.write(self._work)
            except JournalError as error:
                logger.warning("journal.backlog_stalled", extra={"error": str(error)})
                await asyncio.sleep(self._pause)
                continue
            except Exception:
                logger.exception("journal.backlog_failed")
                await asyncio.sleep(self._pause)
                continue
            if not done:
                await self._news.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._longest):
                    await self._much.wait()
