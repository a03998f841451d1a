"""Short commits on the loop's own thread: handing one to another thread costs more than it does."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from .changes import Job, Outcome, begin, commit, failed
from .journal_file import checkpoint, open_again

logger = logging.getLogger(__name__)

SLOW_SECONDS = 0.1
COMMITS_BETWEEN_CHECKPOINTS = 200


class NotHere(Exception):
    """These changes are for a thread to make: one of them is at fault."""


class DirectWriter:
    """Commits at once or not at all: it never waits for whoever else is writing, nor goes on where the disk is slow.

    Opens its connection with the first commit. Checkpoints, which do wait for the disk, are made in a thread.

    Attributes:
        rests: A commit took long: none is made here until one elsewhere did not.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self.rests = False
        self._since_checkpoint = 0
        self._checkpoint: asyncio.Future[None] | None = None

    def try_commit(self, group: Sequence[Job]) -> list[Outcome] | None:
        """Write all of `group` in one transaction; None: somebody else is writing just now. Raises `NotHere`."""
        begun_at = time.monotonic()
        try:
            connection = self._open()
            begin(connection)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                return None
            return failed(group, self._path, error)
        outcomes = commit(connection, group, self._path, patient=False)
        if outcomes is None:
            raise NotHere
        seconds = time.monotonic() - begun_at
        if seconds > SLOW_SECONDS:
            self.rests = True
            logger.warning("journal.slow", extra={"seconds": round(seconds, 3)})
        self._count()
        return outcomes

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = open_again(self._path)
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            self._connection = connection
        return self._connection

    def _count(self) -> None:
        self._since_checkpoint += 1
        if self._since_checkpoint >= COMMITS_BETWEEN_CHECKPOINTS and (
            self._checkpoint is None or self._checkpoint.done()
        ):
            self._since_checkpoint = 0
            self._checkpoint = asyncio.get_running_loop().run_in_executor(None, checkpoint, self._path)

    async def aclose(self) -> None:
        """Close what is open."""
        if self._checkpoint is not None:
            await asyncio.wait({self._checkpoint})
        if self._connection is not None:
            self._connection.close()
            self._connection = None
