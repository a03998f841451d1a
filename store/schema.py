"""The tables of the local record, as the steps that make them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

Step = Sequence[str]

# Step N brings a file of version N to version N + 1. A step that was released is never changed: add another one.
MIGRATIONS: tuple[Step, ...] = (
    (
        """
        CREATE TABLE once (
            kind TEXT NOT NULL,
            key TEXT NOT NULL,
            value TEXT NOT NULL,
            until REAL NOT NULL,
            PRIMARY KEY (kind, key)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX once_by_end ON once (until)",
    ),
)


class NewerSchema(Exception):
    """The file was made by a newer version of the gateway."""


def migrate(connection: sqlite3.Connection, migrations: Sequence[Step] = MIGRATIONS) -> None:
    """Bring the file to the version of this program: all steps that are missing, or none.

    Processes that start together take their turns. `connection` must leave transactions to us (`isolation_level=None`).

    Raises:
        NewerSchema: There are steps in it that this program does not know.
    """
    if _version(connection) == len(migrations):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)
        if version > len(migrations):
            raise NewerSchema
        for step in migrations[version:]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)
