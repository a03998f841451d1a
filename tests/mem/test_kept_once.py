"""An event is kept once, in a journal of whatever age."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from mem import MemoryEvent
from mem.cleaning import Cleaner
from mem.history import Digests, Turn, write_bodies
from mem.inbox import bring_in
from mem.redact import at_once
from mem.rows import _KEPT, SELECT, event_of, keep
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


def usual(name: str, request: str) -> MemoryEvent:
    return MemoryEvent(
        id=name,
        user=ALICE,
        event="chat",
        timestamp=1.5,
        session_id="s",
        request_id=request,
        model="m",
        path="/p",
        answer="a",
        tokens_in=2,
        tokens_out=3,
        latency=0.5,
    )


# What makes an event another than most of its chat.
UNUSUAL: Sequence[dict[str, Any]] = [
    {},
    {"project": "p"},
    {"task_id": "t"},
    {"run_id": "r"},
    {"agent": "a"},
    {"state": "aborted"},
    {"reasoning": "hm"},
    {"tool_calls": ({"name": "f"},)},
    {"text": "said"},
    {"fields": {"status": 400}},
    {"session_id": None, "model": None, "path": None, "tokens_in": None, "tokens_out": None, "latency": None},
]


@pytest.mark.parametrize("more", UNUSUAL, ids=lambda more: next(iter(more), "nothing"))
def test_an_event_of_a_chat_that_is_known_is_kept_as_the_first_one_was(more: dict[str, Any]) -> None:
    journal = connection()
    first, second = (replace(usual(f"00000000-0000-7000-8000-00000000000{n}", f"r{n}"), **more) for n in (1, 2))
    turns = turns_of(ALICE, "hello")
    at_once(write_bodies(turns, CLEANER))
    assert keep(journal, first, turns, CLEANER)
    assert keep(journal, second, turns_of(ALICE, "hello"), CLEANER)
    bring_in(journal)
    rows = journal.execute(f"{SELECT} ORDER BY seq").fetchall()
    assert [event_of(row, ALICE, ()) for row in rows] == [first, second]
    assert [row[2] for row in rows] == [1, 1]


def test_an_event_of_a_chat_that_was_removed_brings_its_messages_again() -> None:
    journal = connection()
    assert keep(journal, usual("00000000-0000-7000-8000-000000000001", "r1"), turns_of(ALICE, "hello"), CLEANER)
    (body,) = journal.execute("SELECT body FROM mem_messages JOIN mem_turns USING (message)").fetchone()
    assert "hello" in body
