"""The tables of the local record, as the steps that make them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

Step = Sequence[str]

_OUTBOX: Step = (
    """
    CREATE TABLE outbox (
        sequence INTEGER PRIMARY KEY,
        sink TEXT NOT NULL,
        id TEXT NOT NULL,
        owner TEXT NOT NULL,
        body BLOB NOT NULL,
        created REAL NOT NULL,
        rejections INTEGER NOT NULL DEFAULT 0,
        due REAL,   -- NULL: set aside
        lease TEXT, -- who sends it until it is due again
        UNIQUE (sink, id)
    )
    """,
    "CREATE INDEX outbox_by_turn ON outbox (sink, due)",
    "CREATE INDEX outbox_by_owner ON outbox (owner)",
    """
    CREATE TABLE outbox_sinks (
        sink TEXT PRIMARY KEY,
        entries INTEGER NOT NULL DEFAULT 0,
        bytes INTEGER NOT NULL DEFAULT 0,
        dropped INTEGER NOT NULL DEFAULT 0,
        set_aside INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID
    """,
    """
    CREATE TRIGGER outbox_grows AFTER INSERT ON outbox BEGIN
        UPDATE outbox_sinks SET entries = entries + 1, bytes = bytes + length(NEW.body) WHERE sink = NEW.sink;
    END
    """,
    """
    CREATE TRIGGER outbox_shrinks AFTER DELETE ON outbox BEGIN
        UPDATE outbox_sinks SET entries = entries - 1, bytes = bytes - length(OLD.body) WHERE sink = OLD.sink;
    END
    """,
)

_USAGE: Step = (
    """
    CREATE TABLE usage_requests (
        sequence INTEGER PRIMARY KEY,
        request_id TEXT NOT NULL UNIQUE,
        user TEXT NOT NULL,
        project TEXT,
        model TEXT NOT NULL,
        tokens_in INTEGER NOT NULL,
        tokens_out INTEGER NOT NULL,
        exact INTEGER NOT NULL,
        status INTEGER NOT NULL,
        path TEXT NOT NULL,
        at REAL NOT NULL,
        duration REAL NOT NULL,
        first_token REAL,
        task_id TEXT
    )
    """,
    "CREATE INDEX usage_requests_by_user ON usage_requests (user, sequence)",
    """
    CREATE TABLE usage_days (
        user TEXT NOT NULL,
        day TEXT NOT NULL,
        model TEXT NOT NULL,
        requests INTEGER NOT NULL,
        errors INTEGER NOT NULL,
        estimated INTEGER NOT NULL,
        tokens_in INTEGER NOT NULL,
        tokens_out INTEGER NOT NULL,
        PRIMARY KEY (user, day, model)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX usage_days_by_day ON usage_days (day)",
)

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
    _OUTBOX,
    _USAGE,
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
