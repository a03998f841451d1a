"""Threads that read the local record, so that no query waits for the writer."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

THREADS = 2  # One long search leaves the other for short reads.
MOST_WAITING = 1_000
BUSY_SECONDS = 5.0


class Readers:
    """Runs queries, each in one read transaction. The threads start with the first query."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queries: queue.SimpleQueue[_Query | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._waiting: set[_Query] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Raises whatever `query` raises, and `sqlite3.Error` where too much waits or the file cannot be opened."""
        if self._queries.qsize() >= MOST_WAITING:
            raise sqlite3.OperationalError("too much is waiting to be read")
        if not self._threads:
            self._start()
        assert self._loop is not None
        job = _Query(query, self._loop.create_future())
        self._waiting.add(job)
        self._queries.put(job)
        try:
            result: T = await job.done
        finally:
            job.stop()
            self._waiting.discard(job)
        return result

    async def aclose(self) -> None:
        """Break off what runs and end the threads."""
        threads, self._threads = self._threads, []
        for _ in threads:
            self._queries.put(None)
        for job in tuple(self._waiting):
            job.stop()
        for thread in threads:
            await asyncio.to_thread(thread.join)

    def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._threads = [threading.Thread(target=self._run, name="journal-reader", daemon=True) for _ in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        while (job := self._queries.get()) is not None:
            try:
                connection = connection or open_reader(self._path)
                result = self._answer(connection, job)
            except Exception as error:  # noqa: BLE001 - raised again where the query was asked
                self._tell(job, None, error)
            else:
                self._tell(job, result, None)
        if connection is not None:
            connection.close()

    @staticmethod
    def _answer(connection: sqlite3.Connection, job: _Query) -> object:
        job.begin(connection)
        try:
            connection.execute("BEGIN")
            return job.query(connection)
        finally:
            job.end()
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _tell(self, job: _Query, result: object, error: Exception | None) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # The loop is gone, and with it everybody who waited.
            self._loop.call_soon_threadsafe(_settle, job.done, result, error)


@dataclass(slots=True, eq=False)
class _Query:
    query: Callable[[sqlite3.Connection], Any]
    done: asyncio.Future[Any]
    _connection: sqlite3.Connection | None = None
    _stopped: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if self._stopped:
                raise sqlite3.OperationalError("nobody waits for it any more")
            self._connection = connection

    def end(self) -> None:
        with self._lock:
            self._connection = None

    def stop(self) -> None:
        """Interrupt the query if it runs, and nothing that runs after it on the same connection."""
        with self._lock:
            self._stopped = True
            if self._connection is not None:
                self._connection.interrupt()


def _settle(done: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)


def open_reader(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=BUSY_SECONDS
    )
    connection.execute("PRAGMA query_only = ON")
    return connection
