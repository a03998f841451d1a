"""Events that have just been written, until they are put where they are looked for."""

from __future__ import annotations

import json
import sqlite3

from store import Backlog, Journal

from .removal import bequeath, event_with, prune
from .rows import COLUMNS

_ALL = f"owner, turn, fresh, {COLUMNS}"
_MOVE = f"INSERT INTO mem_events ({_ALL}) SELECT {_ALL} FROM mem_inbox WHERE true ORDER BY seq ON CONFLICT DO NOTHING"  # noqa: S608 - of fixed words
# Those that were kept before, under the same id or for the same request.
_REFUSED = """
    SELECT owner, turn, fresh FROM mem_inbox i WHERE NOT EXISTS (
        SELECT 1 FROM mem_events e WHERE e.owner = i.owner AND e.id = i.id AND e.turn IS i.turn AND e.fresh = i.fresh
    ) ORDER BY seq
"""


def backlog_of(journal: Journal) -> Backlog:
    """What has yet to be brought in, and reads that see it."""
    return Backlog(journal, waits=has_waiting, work=bring_in)


def has_waiting(connection: sqlite3.Connection) -> bool:
    (waits,) = connection.execute("SELECT EXISTS (SELECT 1 FROM mem_inbox)").fetchone()
    return bool(waits)


def bring_in(connection: sqlite3.Connection) -> int:
    """Put every event where it is looked for, once. Returns how many there were.

    Every change that reads or removes what is remembered begins with it. Statements over all of them, not one for each:
    they keep the interpreter from nobody.
    """
    (waiting,) = connection.execute("SELECT COUNT(*) FROM mem_inbox").fetchone()
    if not waiting:
        return 0
    if connection.execute(_MOVE).rowcount < waiting:
        _let_go_of_refused(connection)
    connection.execute("DELETE FROM mem_inbox")
    return int(waiting)


def _let_go_of_refused(connection: sqlite3.Connection) -> None:
    """Remove what only they said. What others say too is found with one of those."""
    refused = connection.execute(_REFUSED).fetchall()
    for _, turn, _ in refused:
        prune(connection, turn)
    for owner, _, fresh in refused:
        for message in json.loads(fresh):
            heir = event_with(connection, message)
            if heir is not None:
                bequeath(connection, owner, message, heir)
