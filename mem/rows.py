"""Events as rows of the journal, written within its changes and read from its connections."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from .cleaning import Cleaner, compact, json_object
from .history import Turn, write_bodies
from .interface import EXCHANGES, MemoryEvent
from .redact import at_once
from .words import text_of_event, text_of_message

# As they stand in mem_events and mem_inbox, in the order in which `_values` gives them.
COLUMNS = (
    "id, at, event, session, request, task, run, agent, project, model, path, answer, reasoning, tool_calls, text,"
    " state, tokens_in, tokens_out, latency, fields"
)
_PLACES = ", ".join("?" * (COLUMNS.count(",") + 4))
_INSERT = f"INSERT INTO mem_inbox (owner, turn, fresh, {COLUMNS}) VALUES ({_PLACES})"  # noqa: S608 - of fixed words
SELECT = f"SELECT seq, owner, turn, {', '.join(f'e.{name}' for name in COLUMNS.split(', '))} FROM mem_events e"  # noqa: S608
# An exchange as most are. A parameter that is NULL or bytes is offered to adapters first, at the cost of six texts:
# there is none of either. It is one row: with FAIL, no page is copied in order to take back the rows before it.
_INSERT_USUAL = (
    "INSERT OR FAIL INTO mem_inbox (owner, turn, fresh, id, at, event, session, request, model, path, answer,"
    " tokens_in, tokens_out, latency, reasoning, tool_calls, text, state, fields)"
    " SELECT {}, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, '', '[]', '', 'done', '{{}}'"
)
_INSERT_NEW = _INSERT_USUAL.format("?1, ?2")
_INSERT_KNOWN = _INSERT_USUAL.format("o.owner, t.turn") + (
    " FROM mem_owners o CROSS JOIN mem_turns t ON t.owner = o.owner AND t.hash = ?2 WHERE o.user = ?1"
)

_OWNER_AND_TURN = (
    "SELECT owner, (SELECT turn FROM mem_turns t WHERE t.owner = o.owner AND t.hash = ?) FROM mem_owners o"
    " WHERE o.user = ?"
)
_KEPT = (
    "SELECT EXISTS (SELECT 1 FROM mem_events WHERE owner = ?1 AND id = ?2) OR EXISTS (SELECT 1 FROM mem_events"
    " WHERE owner = ?1 AND request = ?3 AND (event = 'chat' OR event = 'completion' OR event = 'embedding'))"
)

LONG_COLUMNS = (14, 15, 16, 17, 22)  # Of a row of `SELECT`: what a caller or an engine may make as long as it likes.


def key_of(id: str) -> bytearray:  # noqa: A002 - as the event calls it
    """The sixteen bytes of an event's id."""
    return bytearray.fromhex(id.replace("-", ""))


def id_of(key: bytes) -> str:
    digits = key.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def owner_of(connection: sqlite3.Connection, user: str) -> int | None:
    """The number of a user who has something in memory."""
    row = connection.execute("SELECT owner FROM mem_owners WHERE user = ?", (user,)).fetchone()
    return None if row is None else int(row[0])


def _is_kept(connection: sqlite3.Connection, owner: int, event: MemoryEvent) -> bool:
    """Whether there is this event, or another of its request."""
    request = event.request_id if event.event in EXCHANGES else None
    (kept,) = connection.execute(_KEPT, (owner, key_of(event.id), request)).fetchone()
    return bool(kept)


def keep(connection: sqlite3.Connection, event: MemoryEvent, turns: Sequence[Turn], cleaner: Cleaner) -> bool:
    """Write an event into the inbox, and of its `turns` those that are not there. False: it is known to be kept.

    What else is kept already is found out when it is brought in.

    Args:
        cleaner: For a message that was believed to be kept, and was removed meanwhile.
    """
    usual = _is_usual(event)
    last = bytearray(turns[-1].chain) if turns else None
    is_known = usual and last is not None and turns[-1].body is None  # It may be wrong.
    if is_known and _insert_usual(connection, event, event.user, last, "[]"):
        return True
    found = connection.execute(_OWNER_AND_TURN, (last, event.user)).fetchone()
    owner, turn = _new_owner(connection, event.user) if found is None else found
    fresh: list[int] = []
    if turns and turn is None:
        if _is_kept(connection, owner, event):
            return False
        turn = _keep_turns(connection, owner, turns, cleaner, fresh)
    if usual and turn is not None:
        _insert_usual(connection, event, owner, turn, compact(fresh))
    else:
        connection.execute(_INSERT, (owner, turn, compact(fresh), *_values(event)))
    return True


def _is_usual(event: MemoryEvent) -> bool:
    """Whether nothing is to be said of it that few have."""
    return (
        event.project is None
        and event.task_id is None
        and event.run_id is None
        and event.agent is None
        and event.state == "done"
        and not (event.reasoning or event.tool_calls or event.text or event.fields)
    )


def _insert_usual(
    connection: sqlite3.Connection, event: MemoryEvent, owner: int | str, turn: int | bytearray | None, fresh: str
) -> bool:
    """Write it with its owner and turn, by their numbers, or by name and digest. False: these are not there."""
    values = (
        owner,
        turn,
        fresh,
        key_of(event.id),
        event.timestamp,
        event.event,
        event.session_id,
        event.request_id,
        event.model,
        event.path,
        event.answer,
        event.tokens_in,
        event.tokens_out,
        event.latency,
    )
    statement = _INSERT_KNOWN if isinstance(owner, str) else _INSERT_NEW
    return connection.execute(statement, values).rowcount > 0


def _new_owner(connection: sqlite3.Connection, user: str) -> tuple[int, None]:
    owner = connection.execute("INSERT INTO mem_owners (user) VALUES (?)", (user,)).lastrowid
    assert owner is not None
    return owner, None


def _keep_turns(
    connection: sqlite3.Connection, owner: int, turns: Sequence[Turn], cleaner: Cleaner, fresh: list[int]
) -> int | None:
    """The number of the last turn, which is new. The search begins there: of a chat, all but the end is known."""
    new = [turns[-1]]
    last: int | None = None
    for turn in reversed(turns[:-1]):
        row = connection.execute(
            "SELECT turn FROM mem_turns WHERE owner = ? AND hash = ?", (owner, bytearray(turn.chain))
        ).fetchone()
        if row is not None:
            last = row[0]
            break
        new.append(turn)
    for turn in reversed(new):
        content = bytearray(turn.content)
        message = _message_of(connection, owner, content)
        if message is None:
            message = _keep_message(connection, owner, content, _body_of(turn, cleaner))
            fresh.append(message)
        last = connection.execute(
            "INSERT INTO mem_turns (owner, hash, parent, message) VALUES (?, ?, ?, ?)",
            (owner, bytearray(turn.chain), last, message),
        ).lastrowid
    return last


def _message_of(connection: sqlite3.Connection, owner: int, content: bytearray) -> int | None:
    row = connection.execute(
        "SELECT message FROM mem_messages WHERE owner = ? AND hash = ?", (owner, content)
    ).fetchone()
    return None if row is None else int(row[0])


def _body_of(turn: Turn, cleaner: Cleaner) -> str:
    if turn.body is None:
        at_once(write_bodies([turn], cleaner))
    assert turn.body is not None
    return turn.body


def _keep_message(connection: sqlite3.Connection, owner: int, content: bytearray, body: str) -> int:
    message = connection.execute(
        "INSERT INTO mem_messages (owner, hash, body) VALUES (?, ?, ?)", (owner, content, body)
    ).lastrowid
    assert message is not None
    return message


def _values(event: MemoryEvent) -> tuple[Any, ...]:
    return (
        key_of(event.id),
        event.timestamp,
        event.event,
        event.session_id,
        event.request_id,
        event.task_id,
        event.run_id,
        event.agent,
        event.project,
        event.model,
        event.path,
        event.answer,
        event.reasoning,
        compact(event.tool_calls),
        event.text,
        event.state,
        event.tokens_in,
        event.tokens_out,
        event.latency,
        compact(event.fields),
    )


def event_of(row: Sequence[Any], user: str, messages: tuple[Mapping[str, Any], ...]) -> MemoryEvent:
    """The event in a row of `SELECT`; `messages` are those up to its turn, oldest first."""
    return MemoryEvent(
        user=user,
        id=id_of(row[3]),
        timestamp=row[4],
        event=row[5],
        session_id=row[6],
        request_id=row[7],
        task_id=row[8],
        run_id=row[9],
        agent=row[10],
        project=row[11],
        model=row[12],
        path=row[13],
        messages=messages,
        answer=row[14],
        reasoning=row[15],
        tool_calls=tuple(json.loads(row[16])),
        text=row[17],
        state=row[18],
        tokens_in=row[19],
        tokens_out=row[20],
        latency=row[21],
        fields=json_object(row[22]),
    )


def text_indexed(connection: sqlite3.Connection, seq: int) -> str | None:
    """What the index has for an event, or is to have. None: there is no such event."""
    row = connection.execute(
        "SELECT fresh, answer, reasoning, tool_calls, text, fields FROM mem_events WHERE seq = ?", (seq,)
    ).fetchone()
    if row is None:
        return None
    parts = [text_of_event(*row[1:])]
    for message in json.loads(row[0]):
        said = connection.execute("SELECT body FROM mem_messages WHERE message = ?", (message,)).fetchone()
        if said is not None:
            parts.append(text_of_message(said[0]))
    return "\n".join(parts)
