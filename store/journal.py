"""The local record: one SQLite file that every worker of this machine shares, and the one thread that writes it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

from .reader import Readers, open_reader
from .schema import MIGRATIONS, NewerSchema, Step, migrate

logger = logging.getLogger(__name__)

T = TypeVar("T")
Change: TypeAlias = Callable[[sqlite3.Connection], object]

JOURNAL_FILE = "journal.sqlite"
BUSY_SECONDS = 5.0  # How long another process may hold the file before a write counts as failed.
MOST_WAITING = 10_000
MOST_IN_GROUP = 256
REOPEN_SECONDS = 5.0


class JournalError(Exception):
    """The record cannot be had or cannot be written. `str()` says what is wrong with which file."""


class Journal:
    """Writes what must survive this process, many callers' changes in one commit.

    A change counts once `write` returns: it then survives the end of this process, however it ends; a power cut may
    cost the last commits (`synchronous=NORMAL` in WAL mode). Open it with `async with`, once, in the loop that uses it.
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
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
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
        thread, self._thread = self._thread, None
        await self._readers.aclose()
        if thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(thread.join)

    async def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Run `change` in the writer's thread and return its result once that is committed.

        Changes run one after another in the order of these calls; one that raises leaves nothing behind, and its
        exception is raised here. Where one raises, those beside it in its commit may run again, and it too. A caller
        that stops waiting does not stop its change.

        Raises:
            JournalError: The record cannot be written now, or too much waits to be written. Nothing was changed.
        """
        if self._thread is None or self._loop is None:
            raise JournalError(f"{self.path} is not open")
        if self._jobs.qsize() >= MOST_WAITING:
            raise JournalError(f"{self.path} has too much waiting to be written")
        job = _Job(change, self._loop.create_future())
        self._jobs.put(job)
        result: T = await job.done
        return result

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
        return await asyncio.to_thread(_empty_log, self.path)

    def _run(self, opened: asyncio.Future[None]) -> None:
        try:
            connection = self._open_now() if self._patient else _open(self.path, self._migrations)
        except JournalError as error:
            self._tell([_Outcome(opened, None, error)])
            return
        self._tell([_Outcome(opened, None, None)])
        tried_at = time.monotonic()
        while group := self._next_group():
            if connection is None and time.monotonic() - tried_at >= REOPEN_SECONDS:
                connection = self._open_now()
                tried_at = time.monotonic()
            if connection is None:
                closed = JournalError(f"{self.path} is not open")
                self._tell([_Outcome(job.done, None, closed) for job in group])
            else:
                self._tell(_commit(connection, group, self.path))
        if connection is not None:
            connection.close()

    def _open_now(self) -> sqlite3.Connection | None:
        try:
            return _open(self.path, self._migrations)
        except JournalError as error:
            logger.error("journal.unavailable", extra={"error": str(error)})
            return None

    def _next_group(self) -> list[_Job]:
        """Everything that waits by now; nothing once the journal is to be closed and all before that is written."""
        group: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            group.append(job)
            if len(group) == MOST_IN_GROUP or self._jobs.empty():
                return group
            job = self._jobs.get()
        if group:
            self._jobs.put(None)
        return group

    def _tell(self, outcomes: Sequence[_Outcome]) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # The loop is gone, and with it everybody who waited.
            self._loop.call_soon_threadsafe(_settle, outcomes)


@dataclass(slots=True)
class _Job:
    change: Callable[[sqlite3.Connection], Any]
    done: asyncio.Future[Any]


@dataclass(slots=True)
class _Outcome:
    done: asyncio.Future[Any]
    result: Any
    error: Exception | None = field(default=None)


def _settle(outcomes: Sequence[_Outcome]) -> None:
    for outcome in outcomes:
        if outcome.done.done():
            continue
        if outcome.error is None:
            outcome.done.set_result(outcome.result)
        else:
            outcome.done.set_exception(outcome.error)


def _commit(connection: sqlite3.Connection, group: Sequence[_Job], path: Path) -> list[_Outcome]:
    """Write all of `group` in one transaction."""
    try:
        outcomes = _all_well(connection, group) or _each_for_itself(connection, group)
    except sqlite3.Error as error:
        logger.error("journal.write_failed", extra={"path": str(path), "error": str(error), "changes": len(group)})
        _roll_back(connection)
        return [_Outcome(job.done, None, JournalError(f"{path} cannot be written: {error}")) for job in group]
    return outcomes


def _all_well(connection: sqlite3.Connection, group: Sequence[_Job]) -> list[_Outcome] | None:
    """None: one of the changes raised, and none of them was made. A savepoint for each costs as much as the rest."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        outcomes = [_Outcome(job.done, job.change(connection)) for job in group]
    except Exception:  # noqa: BLE001 - they are all made again, and then it is known which one it was
        _roll_back(connection)
        return None
    connection.execute("COMMIT")
    return outcomes


def _each_for_itself(connection: sqlite3.Connection, group: Sequence[_Job]) -> list[_Outcome]:
    connection.execute("BEGIN IMMEDIATE")
    outcomes = [_try(connection, job) for job in group]
    connection.execute("COMMIT")
    return outcomes


def _try(connection: sqlite3.Connection, job: _Job) -> _Outcome:
    connection.execute("SAVEPOINT change")
    try:
        outcome = _Outcome(job.done, job.change(connection))
    except Exception as error:  # noqa: BLE001 - raised again where the change was asked for
        # A full disk and the like may have ended the whole transaction: then this raises, and all of the group failed.
        connection.execute("ROLLBACK TO change")
        outcome = _Outcome(job.done, None, error)
    connection.execute("RELEASE change")
    return outcome


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def _open(path: Path, migrations: Sequence[Step]) -> sqlite3.Connection:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_private(path)
        connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS)
    except (OSError, sqlite3.Error) as error:
        raise JournalError(f"{path} cannot be opened: {_words(error)}") from error
    try:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise JournalError(f"{path} is on a disk that cannot share it: ATTACH_DATA_DIR must be a local one")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA secure_delete = ON")  # What somebody wants forgotten is not left in free pages.
        connection.execute("PRAGMA journal_size_limit = 67108864")
        migrate(connection, migrations)
    except NewerSchema as error:
        connection.close()
        raise JournalError(f"{path} was made by a newer version of the gateway: install that one") from error
    except sqlite3.Error as error:
        connection.close()
        raise JournalError(f"{path} cannot be used: {error}") from error
    except JournalError:
        connection.close()
        raise
    return connection


def open_for_reading(directory: Path) -> sqlite3.Connection:
    """A connection to the journal there that cannot write, for a program that only looks. Raises `JournalError`."""
    path = directory / JOURNAL_FILE
    if not path.exists():
        raise JournalError(f"{path} is not there: nothing was kept, or ATTACH_DATA_DIR is another")
    try:
        connection = open_reader(path)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        raise JournalError(f"{path} cannot be read: {error}") from error
    if version != len(MIGRATIONS):
        connection.close()
        raise JournalError(f"{path} is of another version of the gateway: start this one once, or use that one")
    return connection


def _empty_log(path: Path) -> bool:
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS)) as connection:
            (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error:
        return False
    return not busy


def _make_private(path: Path) -> None:
    """Have a file that only its owner can read before anything is in it; SQLite gives its companions the same mode."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_mode & 0o077:
            logger.warning("journal.was_readable_by_others", extra={"path": str(path)})
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
