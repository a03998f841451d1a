"""What the full-text index is given next: taken and put in with a statement each, however many events it is.

Most events say only what stands in three columns, in ASCII: the plain ones. SQLite puts them in by itself, without the
interpreter, which answers need, and each row that Python is given takes from them. Python finds the words of the rest.
"""

from __future__ import annotations

import json
import sqlite3
from typing import NamedTuple, TypeAlias

from .words import indexed, text_of_event, text_of_message

MOST_EVENTS = 500
MOST_CHARACTERS = 64 * 1024  # What the writer is kept from answers for, in one go.
_AT_ONCE = 32  # Events that are looked at before it is known how long they are.

_SIZE = "length(answer) + length(reasoning) + length(tool_calls) + length(text) + length(fields)"
_SAID = "answer || char(10) || reasoning || char(10) || text"  # As `text_of_event` has it.
_LOOKS_PLAIN = " AND ".join(
    (
        "fresh = '[]' AND tool_calls = '[]' AND fields = '{}'",
        # True of ASCII alone: LENGTH counts the characters before the first NUL.
        *(f"length({column}) = length(CAST({column} AS BLOB))" for column in ("answer", "reasoning", "text")),
    )
)
_IS_PLAIN = f"{_LOOKS_PLAIN} AND {_SIZE} < {MOST_CHARACTERS}"
_FRESH = "json_each(e.fresh) f CROSS JOIN mem_messages ON message = f.value"
_LONG = f"{_SIZE} + CASE fresh WHEN '[]' THEN 0 ELSE (SELECT TOTAL(length(body)) FROM {_FRESH}) END"  # noqa: S608 - of fixed words
# The next events, however long they are: where they are not too long together, what looks plain is.
_BLOCK = f"""
    SELECT COUNT(*), MAX(seq), TOTAL(long), TOTAL(plain),
        json_group_array(json_array(seq, fresh)) FILTER (WHERE NOT plain)
    FROM (
        SELECT seq, fresh, {_LOOKS_PLAIN} AS plain, {_LONG} AS long FROM mem_events e WHERE seq > ? ORDER BY seq LIMIT ?
    )
"""  # noqa: S608
# No further than to the one that makes them too long. A step costs more than to look at an event.
_STEPS = f"""
    WITH RECURSIVE ahead (reached, says, plain, total, count) AS (
        SELECT ?, NULL, NULL, 0, 0
        UNION ALL
        SELECT seq, fresh, {_IS_PLAIN}, total + {_LONG}, count + 1
        FROM ahead CROSS JOIN mem_events e ON seq = (SELECT MIN(seq) FROM mem_events WHERE seq > reached)
        WHERE total < ? AND count < ?
    )
    SELECT MAX(count), MAX(reached), MAX(total), TOTAL(plain),
        json_group_array(json_array(reached, says)) FILTER (WHERE NOT plain) FROM ahead
"""  # noqa: S608
_OTHERS_NOW = """
    SELECT json_group_array(json_array(seq, fresh))
    FROM json_each(?) CROSS JOIN mem_events ON seq = json_extract(value, '$[0]')
"""
_OTHERS = f"""
    SELECT json_group_array(json_array(seq, owner, json_array(answer, reasoning, tool_calls, text, fields), json((
        SELECT json_group_array(body) FROM (SELECT body FROM {_FRESH} ORDER BY f.key)
    )))) FROM mem_events e WHERE seq > ? AND seq <= ? AND NOT ({_IS_PLAIN})
"""  # noqa: S608 - of fixed words
_PUT = (
    f"INSERT INTO mem_words (rowid, owner, words) SELECT seq, owner, {_SAID} FROM mem_events WHERE seq > ? AND seq <= ?"  # noqa: S608
)
_PUT_PLAIN = f"{_PUT} AND {_IS_PLAIN}"
_PUT_ALL = f"{_PUT} AND fresh = '[]'"  # Where all were plain: what else makes an event plain never changes.
_PUT_OTHERS = (
    "INSERT INTO mem_words (rowid, owner, words) SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'),"
    " json_extract(value, '$[2]') FROM json_each(?)"
)

_Words: TypeAlias = list[tuple[int, str, str]]


class Ahead(NamedTuple):
    """The events behind `mark` up to `last`.

    Attributes:
        plain: How many of them are plain.
        others: The rest as JSON: of each its seq, and all of it that ever changes.
        words: Seq, owner and words of each of the rest.
    """

    mark: int
    last: int
    plain: float
    others: str
    words: _Words


def mark_of(connection: sqlite3.Connection) -> int:
    """The last event that is in the index."""
    (seq,) = connection.execute("SELECT seq FROM mem_indexed").fetchone()
    return int(seq)


def look_ahead(connection: sqlite3.Connection) -> Ahead | None:
    """What follows where the index ends. None: nothing."""
    mark = last = mark_of(connection)
    events, size, plain, others = 0, 0.0, 0.0, "[]"
    while events < MOST_EVENTS and size < MOST_CHARACTERS:
        wanted = min(_AT_ONCE, MOST_EVENTS - events)
        count, reached, long, *found = connection.execute(_BLOCK, (last, wanted)).fetchone()
        if size + long >= MOST_CHARACTERS:
            count, reached, long, *found = connection.execute(_STEPS, (last, MOST_CHARACTERS - size, wanted)).fetchone()
        if count:
            last, events, size, plain = reached, events + count, size + long, plain + found[0]
            others = _joined(others, found[1])
        if count < wanted:
            break
    if last == mark:
        return None
    return Ahead(mark, last, plain, others, [] if others == "[]" else _words_of_others(connection, mark, last))


def _joined(some: str, more: str) -> str:
    """Two arrays in JSON as one."""
    return some if more == "[]" else more if some == "[]" else f"{some[:-1]},{more[1:]}"


def put_in_all(ahead: Ahead, connection: sqlite3.Connection) -> None:
    """Put in what is ahead and still kept; nothing, if another worker was faster."""
    mark, last, plain, others, words = ahead
    if mark_of(connection) != mark:
        return
    count = connection.execute(_PUT_ALL if others == "[]" else _PUT_PLAIN, (mark, last)).rowcount
    (others_now,) = connection.execute(_OTHERS_NOW, (others,)).fetchone()
    if (count, others_now) != (plain, others):
        # Some were removed. Others may be the first now to say what those had said, and plain no more.
        words = _words_of_others(connection, mark, last)
    if words:
        connection.execute(_PUT_OTHERS, (json.dumps(words),))
    connection.execute("UPDATE mem_indexed SET seq = ?", (last,))


def _words_of_others(connection: sqlite3.Connection, mark: int, last: int) -> _Words:
    """Seq, owner and words of the events that are not plain."""
    (found,) = connection.execute(_OTHERS, (mark, last)).fetchone()
    texts = (
        (seq, owner, "\n".join((text_of_event(*said), *map(text_of_message, bodies))))
        for seq, owner, said, bodies in json.loads(found)
    )
    # Of a text in JSON, SQLite takes what is before the first NUL.
    return [(seq, str(owner), indexed(text).replace("\0", " ")) for seq, owner, text in texts]
