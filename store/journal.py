"""The local record: one SQLite file that every worker of this machine shares, written by one of them at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from .changes import Change, Job, JournalError, Outcome, Told, begin, commit, failed, tell
from .direct import SLOW_SECONDS, DirectWriter, NotHere
from .journal_file import JOURNAL_FILE, empty_log, open_writer
from .reader import Readers
from .schema import MIGRATIONS, Step

logger = logging.getLogger(__name__)

T = TypeVar("T")

MOST_WAITING = 10_000
MOST_IN_GROUP = 256
REOPEN_SECONDS = 5.0
TURNS = 20  # of the loop, in which it may do something else; a commit is over sooner than a timer rings
RETRIES = 10
RETRY_SECONDS = 0.001


class Journal:
    """Writes what must survive this process, many callers' changes in one commit.

    A change counts once it was told to be done: it then survives the end of this process, however it ends; a power cut
    may cost the last commits (`synchronous=NORMAL` in WAL mode). Open it with `async with`, once, in the loop that uses
    it.

    Attributes:
        held_up: How often what `write_soon` was asked for found somebody else writing, this process's thread included.
    """

    def __init__(self, directory: Path, *, migrations: Sequence[Step] = MIGRATIONS, patient: bool = False) -> None:
        """Opens nothing.

        Args:
            directory: Made with mode 0700 if it is not there; the file in it has mode 0600.
            migrations: As `store.schema.MIGRATIONS`.
            patient: A file that cannot be opened is no reason not to start: it is tried again every few seconds, and
                until then each call raises.
        """
        self.path = directory / JOURNAL_FILE
        self._migrations = migrations
        self._patient = patient
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.held_up = 0
        self._is_open = False  # As the thread last found it.
        self._direct = DirectWriter(self.path)
        self._gathered: list[Job] = []
        self._tries = 0
        self._readers = Readers(self.path)

    async def __aenter__(self) -> Self:
        """Raises `JournalError`."""
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="journal", daemon=True)
        self._thread.start()
        try:
            await opened
        except JournalError:
            self._thread = None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hand_over()
        thread, self._thread = self._thread, None
        await self._readers.aclose()
        if thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(thread.join)
        self._is_open = False
        await self._direct.aclose()

    async def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Run `change` in the writer's thread and return its result once that is committed.

        Changes run one after another in the order of these calls; one that raises leaves nothing behind, and its
        exception is raised here. Where one raises, those beside it in its commit may run again, and it too. A caller
        that stops waiting does not stop its change.

        Raises:
            JournalError: The record cannot be written now, or too much waits to be written. Nothing was changed.
        """
        loop = self._check()
        done: asyncio.Future[T] = loop.create_future()
        self._jobs.put((change, partial(_settle, done)))
        return await done

    def write_soon(self, change: Change, told: Told) -> None:
        """As `write`, for a change that takes no time to speak of: an answer waits for it.

        It is made before this turn of the loop is over, on the loop's own thread, together with whatever else was asked
        for in this turn; or, where somebody else is writing or the disk is slow, a little later by the writer's thread.
        `told` is called on the loop with the result or with the exception, `JournalError` among them. It must not wait.

        Raises:
            JournalError: As `write`.
        """
        loop = self._check()
        self._gathered.append((change, told))
        if len(self._gathered) == 1:
            self._tries = 0
            loop.call_soon(self._commit_gathered)

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run `query` in a reader's thread, over a connection that cannot write, and return its result.

        It sees everything whose `write` has returned, and one state of it from its first statement to its last.
        Never waits for the writer, nor the writer for it. A query that its caller no longer waits for is broken off.

        Raises:
            JournalError: The record cannot be read now, or too much waits to be read.
        """
        if self._thread is None:
            raise JournalError(f"{self.path} is not open")
        try:
            return await self._readers.read(query)
        except sqlite3.Error as error:
            raise JournalError(f"{self.path} cannot be read: {error}") from error

    async def shrink(self) -> bool:
        """Empty the write-ahead log, where what was deleted may still stand. False: somebody reads from it just now."""
        return await asyncio.to_thread(empty_log, self.path)

    def _check(self) -> asyncio.AbstractEventLoop:
        if self._thread is None or self._loop is None:
            raise JournalError(f"{self.path} is not open")
        if self._jobs.qsize() + len(self._gathered) >= MOST_WAITING:
            raise JournalError(f"{self.path} has too much waiting to be written")
        return self._loop

    # On the loop's thread.

    def _commit_gathered(self) -> None:
        if not self._gathered:
            return  # They were handed over meanwhile.
        if not self._is_open or self._direct.rests:
            self._hand_over()
            return
        try:
            outcomes = self._direct.try_commit(self._gathered)
        except NotHere:
            self._hand_over()
            return
        if outcomes is not None:
            self._gathered = []
            tell(outcomes)
        elif self._tries < TURNS + RETRIES:
            assert self._loop is not None
            if not self._tries:
                self.held_up += 1
            self._tries += 1
            if self._tries <= TURNS:
                self._loop.call_soon(self._commit_gathered)
            else:
                self._loop.call_later(RETRY_SECONDS, self._commit_gathered)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        """Let the thread do what waits: it can be patient."""
        gathered, self._gathered = self._gathered, []
        for job in gathered:
            self._jobs.put(job)

    # On the writer's thread.

    def _run(self, opened: asyncio.Future[None]) -> None:
        told = partial(_settle, opened)
        try:
            connection = self._open_now() if self._patient else open_writer(self.path, self._migrations)
        except JournalError as error:
            self._tell([(told, None, error)])
            return
        self._is_open = connection is not None
        self._tell([(told, None, None)])
        tried_at = time.monotonic()
        while group := self._next_group():
            if connection is None and time.monotonic() - tried_at >= REOPEN_SECONDS:
                connection = self._open_now()
                self._is_open = connection is not None
                tried_at = time.monotonic()
            if connection is None:
                closed = JournalError(f"{self.path} is not open")
                self._tell([(told, None, closed) for _, told in group])
            else:
                begun_at = time.monotonic()
                outcomes = _commit(connection, group, self.path)
                if time.monotonic() - begun_at <= SLOW_SECONDS:
                    self._direct.rests = False
                self._tell(outcomes)
        if connection is not None:
            connection.close()

    def _open_now(self) -> sqlite3.Connection | None:
        try:
            return open_writer(self.path, self._migrations)
        except JournalError as error:
            logger.error("journal.unavailable", extra={"error": str(error)})
            return None

    def _next_group(self) -> list[Job]:
        """Everything that waits by now; nothing once the journal is to be closed and all before that is written."""
        group: list[Job] = []
        job = self._jobs.get()
        while job is not None:
            group.append(job)
            if len(group) == MOST_IN_GROUP or self._jobs.empty():
                return group
            job = self._jobs.get()
        if group:
            self._jobs.put(None)
        return group

    def _tell(self, outcomes: Sequence[Outcome]) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # The loop is gone, and with it everybody who waited.
            self._loop.call_soon_threadsafe(tell, outcomes)


def _settle(done: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)


def _commit(connection: sqlite3.Connection, group: Sequence[Job], path: Path) -> list[Outcome]:
    try:
        begin(connection)
    except sqlite3.Error as error:
        return failed(group, path, error)
    return commit(connection, group, path) or []
