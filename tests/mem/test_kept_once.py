"""An event is kept once, in a journal of whatever age."""

from __future__ import annotations

import sqlite3

from mem import MemoryEvent
from mem.cleaning import Cleaner
from mem.history import Digests, Turn
from mem.inbox import bring_in
from mem.redact import at_once
from mem.rows import _KEPT, keep
from store.schema import _MEMORY_REQUESTS, MIGRATIONS, migrate
from tests.mem.contract import ALICE, BOB

CLEANER = Cleaner(None)
DIGESTS = Digests(b"k" * 32)


def connection(steps: int = len(MIGRATIONS)) -> sqlite3.Connection:
    made = sqlite3.connect(":memory:", isolation_level=None)
    migrate(made, MIGRATIONS[:steps])
    return made


def turns_of(user: str, *said: str) -> list[Turn]:
    return at_once(DIGESTS.turns(user, [{"role": "user", "content": text} for text in said]))


def put(journal: sqlite3.Connection, event: MemoryEvent, *said: str) -> bool:
    """Whether it came to be kept."""
    before = count(journal, "mem_events")
    keep(journal, event, turns_of(event.user, *said), CLEANER)
    bring_in(journal)
    return count(journal, "mem_events") > before


def count(journal: sqlite3.Connection, table: str) -> int:
    return int(journal.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])


def test_a_request_that_a_file_of_before_has_is_not_kept_again() -> None:
    journal = connection(MIGRATIONS.index(_MEMORY_REQUESTS))
    journal.execute("INSERT INTO mem_owners (user) VALUES (?)", (ALICE,))
    journal.execute(
        "INSERT INTO mem_events (id, owner, at, event, request, fresh, answer, reasoning, tool_calls, text, state,"
        " fields) VALUES (randomblob(16), 1, 0, 'chat', 'r', '[]', '', '', '[]', '', 'done', '{}')"
    )
    migrate(journal)
    assert not put(journal, MemoryEvent(user=ALICE, event="chat", request_id="r"), "hello")
    assert not put(journal, MemoryEvent(user=ALICE, event="completion", request_id="r"), "something else")
    assert put(journal, MemoryEvent(user=ALICE, event="note", request_id="r"))
    assert put(journal, MemoryEvent(user=BOB, event="chat", request_id="r"), "hello")
    assert count(journal, "mem_events") == 3


def test_an_event_that_comes_again_leaves_nothing() -> None:
    journal = connection()
    event = MemoryEvent(user=ALICE, event="note")
    assert put(journal, event)
    assert not put(journal, event)
    assert not put(journal, event, "never said")
    assert (count(journal, "mem_events"), count(journal, "mem_messages"), count(journal, "mem_turns")) == (1, 0, 0)


def test_a_message_is_kept_once_whether_or_not_it_was_believed_to_be_there() -> None:
    journal = connection()
    for said in (("a", "b", "a"), ("a", "b", "a"), ("b",), ("a", "b", "a", "c")):
        turns = turns_of(ALICE, *said)
        for turn in turns[::2]:
            turn.body = "{}"
        assert keep(journal, MemoryEvent(user=ALICE, event="chat"), turns, CLEANER)
    assert bring_in(journal) == 4
    fresh = [row[0] for row in journal.execute("SELECT fresh FROM mem_events ORDER BY seq")]
    assert fresh == ["[1,2]", "[]", "[]", "[3]"]
    assert (count(journal, "mem_messages"), count(journal, "mem_turns")) == (3, 5)


def test_a_request_is_looked_for_by_its_index() -> None:
    plan = connection().execute(f"EXPLAIN QUERY PLAN {_KEPT}", (1, b"", "r")).fetchall()
    assert any("mem_events_by_request" in step[-1] for step in plan)
