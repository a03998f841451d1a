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

_MEMORY: Step = (
    # Messages are known by a digest that says nothing to whoever has not got this key.
    "CREATE TABLE mem_key (key BLOB NOT NULL)",
    "INSERT INTO mem_key VALUES (randomblob(32))",
    """
    CREATE TABLE mem_owners (
        owner INTEGER PRIMARY KEY AUTOINCREMENT,
        user TEXT UNIQUE -- NULL: forgotten; what is left of it is being removed
    )
    """,
    """
    CREATE TABLE mem_messages (
        message INTEGER PRIMARY KEY AUTOINCREMENT,
        owner INTEGER NOT NULL,
        hash BLOB NOT NULL,
        body TEXT NOT NULL,
        UNIQUE (owner, hash)
    )
    """,
    # A turn is a message and all that was said before it: two chats that begin alike share their first turns.
    """
    CREATE TABLE mem_turns (
        turn INTEGER PRIMARY KEY AUTOINCREMENT,
        owner INTEGER NOT NULL,
        hash BLOB NOT NULL,
        parent INTEGER, -- NULL: the first
        message INTEGER NOT NULL,
        UNIQUE (owner, hash)
    )
    """,
    "CREATE INDEX mem_turns_by_parent ON mem_turns (parent) WHERE parent IS NOT NULL",
    "CREATE INDEX mem_turns_by_message ON mem_turns (message)",
    """
    CREATE TABLE mem_events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id BLOB NOT NULL, -- the sixteen bytes of a UUIDv7
        owner INTEGER NOT NULL,
        at REAL NOT NULL,
        event TEXT NOT NULL,
        session TEXT,
        request TEXT,
        task TEXT,
        run TEXT,
        agent TEXT,
        project TEXT,
        model TEXT,
        path TEXT,
        turn INTEGER, -- the last of what was sent; NULL: nothing was
        fresh TEXT NOT NULL, -- JSON: the messages that the index has with this event, for it was the first to say them
        answer TEXT NOT NULL,
        reasoning TEXT NOT NULL,
        tool_calls TEXT NOT NULL, -- JSON
        text TEXT NOT NULL,
        state TEXT NOT NULL,
        tokens_in INTEGER,
        tokens_out INTEGER,
        latency REAL,
        fields TEXT NOT NULL, -- JSON
        UNIQUE (owner, id)
    )
    """,
    """
    CREATE UNIQUE INDEX mem_events_by_request ON mem_events (owner, request)
    WHERE request IS NOT NULL AND event IN ('chat', 'completion', 'embedding')
    """,
    "CREATE INDEX mem_events_by_session ON mem_events (owner, session, id)",
    "CREATE INDEX mem_events_by_task ON mem_events (owner, task, id) WHERE task IS NOT NULL",
    "CREATE INDEX mem_events_by_run ON mem_events (owner, run, id) WHERE run IS NOT NULL",
    "CREATE INDEX mem_events_by_turn ON mem_events (turn) WHERE turn IS NOT NULL",
    # By seq, without a copy of the text: what it needs to take something out again it is told.
    """
    CREATE VIRTUAL TABLE mem_words USING fts5 (
        owner, words, content = '', tokenize = 'unicode61 remove_diacritics 2'
    )
    """,
    """
    CREATE TABLE mem_indexed (
        version INTEGER NOT NULL,  -- of the way in which words are found in what is kept
        seq INTEGER NOT NULL,      -- the last event that is in the index
        tidy INTEGER NOT NULL,     -- 0: it still holds words of what was removed
        probe INTEGER NOT NULL     -- counted up to see whether writing works
    )
    """,
    "INSERT INTO mem_indexed VALUES (1, 0, 1, 0)",
)

_A2A_IDS: Step = (
    # Whose a task or a context at an agent is.
    """
    CREATE TABLE a2a_ids (
        agent TEXT NOT NULL,
        kind TEXT NOT NULL,
        digest BLOB NOT NULL,  -- SHA-256 of the agent's id
        owner TEXT NOT NULL,
        seen REAL NOT NULL,
        PRIMARY KEY (agent, kind, digest)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX a2a_ids_by_owner ON a2a_ids (owner, seen)",
)

_MEMORY_FILTERS: Step = (
    # For pages of what a user has little of among very much: without it, all of that is looked at.
    "CREATE INDEX mem_events_by_model ON mem_events (owner, model, id) WHERE model IS NOT NULL",
    "CREATE INDEX mem_events_by_event ON mem_events (owner, event, id) WHERE event <> 'chat'",
)

_MEMORY_REQUESTS: Step = (
    # `IN` has SQLite make a table of its list for every event that is put in.
    "DROP INDEX mem_events_by_request",
    """
    CREATE UNIQUE INDEX mem_events_by_request ON mem_events (owner, request)
    WHERE request IS NOT NULL AND (event = 'chat' OR event = 'completion' OR event = 'embedding')
    """,
)

# What an exchange leaves: a row at the end of each, where there is no index to be kept. From there many at a time are
# brought to the tables with the same columns.
_INBOXES: Step = (
    """
    CREATE TABLE usage_inbox (
        sequence INTEGER PRIMARY KEY,
        request_id TEXT NOT NULL,
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
    """
    CREATE TABLE mem_inbox (
        seq INTEGER PRIMARY KEY,
        id BLOB NOT NULL,
        owner INTEGER NOT NULL,
        at REAL NOT NULL,
        event TEXT NOT NULL,
        session TEXT,
        request TEXT,
        task TEXT,
        run TEXT,
        agent TEXT,
        project TEXT,
        model TEXT,
        path TEXT,
        turn INTEGER,
        fresh TEXT NOT NULL,
        answer TEXT NOT NULL,
        reasoning TEXT NOT NULL,
        tool_calls TEXT NOT NULL,
        text TEXT NOT NULL,
        state TEXT NOT NULL,
        tokens_in INTEGER,
        tokens_out INTEGER,
        latency REAL,
        fields TEXT NOT NULL
    )
    """,
)

_MEMORY_WORDS: Step = (
    # Nothing asks how many words an event has: `columnsize` would write that down in a row for each. The index is built
    # anew behind the answers.
    "DROP TABLE mem_words",
    """
    CREATE VIRTUAL TABLE mem_words USING fts5 (
        owner, words, content = '', columnsize = 0, tokenize = 'unicode61 remove_diacritics 2'
    )
    """,
    "UPDATE mem_indexed SET seq = 0, tidy = 1",
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
    _MEMORY,
    _A2A_IDS,
    _MEMORY_FILTERS,
    _MEMORY_REQUESTS,
    _INBOXES,
    _MEMORY_WORDS,
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
