"""What an agent writes in a user's name says so, and belongs to its task whatever it claims."""

from __future__ import annotations

import json

import pytest

from mem import Caller, InvalidMemory, is_event_id
from mem.forms import read_logs, read_note

NOW = 1_760_000_000.0
AGENT = Caller(user="alice", session_id="s" * 16, request_id="r", agent="planner", task_id="t1")
CLAIMS = {"task_id": "t2", "agent": "boss", "session_id": "elsewhere", "user": "bob", "id": "x", "request_id": "y"}


def test_an_agents_note_is_its_tasks() -> None:
    note = read_note(json.dumps({"text": "found it", **CLAIMS}).encode(), AGENT, NOW)
    assert (note.user, note.agent, note.task_id, note.session_id) == ("alice", "planner", "t1", "s" * 16)
    assert note.request_id == "r"
    assert is_event_id(note.id)
    assert note.fields == {"user": "bob", "id": "x", "request_id": "y"}


def test_an_agents_log_line_is_its_tasks() -> None:
    line = {"run_id": "run", "level": "info", "message": "found it", **CLAIMS}
    (log,) = read_logs(json.dumps(line).encode(), AGENT, NOW)
    assert (log.user, log.agent, log.task_id, log.session_id, log.run_id) == (
        "alice",
        "planner",
        "t1",
        "s" * 16,
        "run",
    )


def test_a_user_may_say_what_a_note_belongs_to() -> None:
    caller = Caller(user="alice", session_id="s" * 16)
    note = read_note(json.dumps({"text": "x", "task_id": "t2", "agent": "coder", "run_id": 7}).encode(), caller, NOW)
    assert (note.task_id, note.agent, note.run_id, note.session_id) == ("t2", "coder", "7", "s" * 16)


@pytest.mark.parametrize(
    ("note", "field"),
    [
        ({}, "text"),
        ({"text": ""}, "text"),
        ({"text": ["x"]}, "text"),
        ({"text": "x", "event": "chat"}, "event"),
        ({"text": "x", "timestamp": NOW + 90_000}, "timestamp"),
        ({"text": "x", "timestamp": "2026-13-01T00:00:00Z"}, "timestamp"),
        ({"text": "x", "timestamp": True}, "timestamp"),
        ({"text": "x", "run_id": "r" * 257}, "run_id"),
        ({"text": "x", "task_id": {"a": 1}}, "task_id"),
    ],
)
def test_a_note_that_does_not_fit_is_told_where(note: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidMemory) as invalid:
        read_note(json.dumps(note).encode(), Caller(user="alice"), NOW)
    assert [name for name, _ in invalid.value.fields] == [field]
