"""The file of the local record: made, opened, and emptied of what was deleted."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from .changes import Change, JournalError
from .reader import open_reader
from .schema import MIGRATIONS, NewerSchema, Step, migrate

logger = logging.getLogger(__name__)

JOURNAL_FILE = "journal.sqlite"
BUSY_SECONDS = 5.0  # How long another process may hold the file before a write counts as failed.


def open_writer(path: Path, migrations: Sequence[Step]) -> sqlite3.Connection:
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
        _configure(connection)
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


def open_again(path: Path) -> sqlite3.Connection:
    """One more connection to a file that `open_writer` has opened, which waits for nobody. Raises `sqlite3.Error`."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=0)
    _configure(connection)
    return connection


def _configure(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA wal_autocheckpoint = 16384")  # 64 MB; above it, each commit waits for the disk.
    connection.execute("PRAGMA secure_delete = ON")  # What somebody wants forgotten is not left in free pages.


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


def change_once(directory: Path, change: Change) -> None:
    """Make a change to the journal there, for a program that opens none. Raises `JournalError`."""
    path = directory / JOURNAL_FILE
    try:
        with contextlib.closing(open_again(path)) as connection:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}")
            connection.execute("BEGIN IMMEDIATE")
            change(connection)
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise JournalError(f"{path} cannot be written: {error}") from error


def empty_log(path: Path) -> bool:
    """Empty the write-ahead log. False: somebody reads from it just now."""
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS)) as connection:
            (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error:
        return False
    return not busy


def checkpoint(path: Path) -> None:
    """Move what the write-ahead log holds to the file itself, in nobody's way."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(open_again(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


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
