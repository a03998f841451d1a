"""Taking events out of the journal, with everything that only they needed."""

from __future__ import annotations

import json
import sqlite3

from .cleaning import compact
from .index import put_in, take_out
from .rows import text_indexed


def remove(connection: sqlite3.Connection, owner: int, seq: int) -> None:
    """Remove one event. What others say too stays, and is found with one of them from now on."""
    row = connection.execute("SELECT turn, fresh FROM mem_events WHERE seq = ?", (seq,)).fetchone()
    if row is None:
        return
    take_out(connection, owner, seq, text_indexed(connection, seq) or "")
    connection.execute("DELETE FROM mem_events WHERE seq = ?", (seq,))
    prune(connection, row[0])
    for message in json.loads(row[1]):
        heir = event_with(connection, message)
        if heir is not None:
            bequeath(connection, owner, message, heir)


def prune(connection: sqlite3.Connection, turn: int | None) -> None:
    """Remove a turn that leads to no event any more, then the one before it, and so on."""
    while turn is not None:
        if connection.execute(
            "SELECT EXISTS (SELECT 1 FROM mem_events WHERE turn = ?1) OR EXISTS"
            " (SELECT 1 FROM mem_turns WHERE parent = ?1)",
            (turn,),
        ).fetchone()[0]:
            return
        row = connection.execute("SELECT parent, message FROM mem_turns WHERE turn = ?", (turn,)).fetchone()
        if row is None:
            return
        parent, message = row
        connection.execute("DELETE FROM mem_turns WHERE turn = ?", (turn,))
        connection.execute(
            "DELETE FROM mem_messages WHERE message = ?1 AND NOT EXISTS (SELECT 1 FROM mem_turns WHERE message = ?1)",
            (message,),
        )
        turn = parent


def event_with(connection: sqlite3.Connection, message: int) -> int | None:
    """An event that says it: every turn that is there leads to one."""
    (turn,) = connection.execute("SELECT MAX(turn) FROM mem_turns WHERE message = ?", (message,)).fetchone()
    while turn is not None:
        (seq,) = connection.execute("SELECT MAX(seq) FROM mem_events WHERE turn = ?", (turn,)).fetchone()
        if seq is not None:
            return int(seq)
        (turn,) = connection.execute("SELECT MAX(turn) FROM mem_turns WHERE parent = ?", (turn,)).fetchone()
    return None


def bequeath(connection: sqlite3.Connection, owner: int, message: int, heir: int) -> None:
    """Have the index find a message with the event `heir`."""
    take_out(connection, owner, heir, text_indexed(connection, heir) or "")
    (fresh,) = connection.execute("SELECT fresh FROM mem_events WHERE seq = ?", (heir,)).fetchone()
    connection.execute("UPDATE mem_events SET fresh = ? WHERE seq = ?", (compact([*json.loads(fresh), message]), heir))
    put_in(connection, owner, heir, text_indexed(connection, heir) or "")


def disown(connection: sqlite3.Connection, user: str) -> bool:
    """Make everything of a user nobody's: no read finds it from the commit on. `sweep` removes it. False: nothing."""
    return connection.execute("UPDATE mem_owners SET user = NULL WHERE user = ?", (user,)).rowcount > 0


def sweep(connection: sqlite3.Connection, most: int) -> int:
    """Remove up to `most` rows of what is nobody's. Returns how many; 0: nothing is left."""
    row = connection.execute("SELECT owner FROM mem_owners WHERE user IS NULL LIMIT 1").fetchone()
    if row is None:
        return 0
    (owner,) = row
    events = connection.execute("SELECT seq FROM mem_events WHERE owner = ? LIMIT ?", (owner, most)).fetchall()
    for (seq,) in events:
        take_out(connection, owner, seq, text_indexed(connection, seq) or "")
    connection.executemany("DELETE FROM mem_events WHERE seq = ?", events)
    removed = len(events)
    for table, number in (("mem_turns", "turn"), ("mem_messages", "message")):
        if removed >= most:
            return removed
        removed += connection.execute(
            f"DELETE FROM {table} WHERE {number} IN (SELECT {number} FROM {table} WHERE owner = ? LIMIT ?)",  # noqa: S608
            (owner, most - removed),
        ).rowcount
    if removed == 0:
        return connection.execute("DELETE FROM mem_owners WHERE owner = ?", (owner,)).rowcount
    return removed


def oldest(connection: sqlite3.Connection, before: bytes, most: int) -> list[tuple[int, str, int, bytes]]:
    """Owner, user, seq and key of up to `most` events whose keys are below `before`."""
    found: list[tuple[int, str, int, bytes]] = []
    for owner, user in connection.execute("SELECT owner, user FROM mem_owners WHERE user IS NOT NULL").fetchall():
        rows = connection.execute(
            "SELECT seq, id FROM mem_events WHERE owner = ? AND id < ? ORDER BY id LIMIT ?",
            (owner, before, most - len(found)),
        )
        found += ((owner, user, seq, key) for seq, key in rows)
        if len(found) >= most:
            break
    return found


def forget_names(connection: sqlite3.Connection) -> None:
    """Let go of users of whom nothing is left."""
    connection.execute(
        "DELETE FROM mem_owners WHERE user IS NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM mem_events e WHERE e.owner = mem_owners.owner)"
    )
