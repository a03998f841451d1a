"""Whose an agent's tasks are: first come, kept, bounded for each user, and no use to anybody who waits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from a2a.bindings import Ids, JournalBindings
from a2a.sightings import EventReader, Sighting, StreamReader, sighting
from store import Journal
from tests.clock import Clock


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with Journal(tmp_path) as opened:
        yield opened


def task(*names: str) -> Ids:
    return Ids.of(tasks=names)


async def test_an_id_is_its_first_owners_at_one_agent_and_of_one_kind(journal: Journal) -> None:
    bindings = JournalBindings(journal)
    assert await bindings.bind("echo", "alice", Ids.of(tasks=["x"], contexts=["y"])) == []
    assert list(await bindings.bind("echo", "bob", task("x", "z"))) == [("task", "x")]
    assert await bindings.owners("echo", task("x", "z", "y")) == {("task", "x"): "alice", ("task", "z"): "bob"}
    assert await bindings.owners("other", task("x")) == {}
    assert (await bindings.count("echo", "alice"), await bindings.count("echo", "bob")) == (1, 1)


async def test_another_process_finds_what_one_has_bound(journal: Journal) -> None:
    await JournalBindings(journal).bind("echo", "alice", task("x"))
    other = JournalBindings(journal)
    assert await other.owners("echo", task("x")) == {("task", "x"): "alice"}
    assert list(await other.bind("echo", "bob", task("x"))) == [("task", "x")]


async def test_what_is_seen_now_and_then_is_kept_and_what_is_not_is_free_in_the_end(journal: Journal) -> None:
    clock = Clock()
    bindings = JournalBindings(journal, clock, kept_seconds=10 * 86_400.0)
    await bindings.bind("echo", "alice", task("seen", "unseen"))
    for _ in range(3):
        clock.advance(4 * 86_400)
        await bindings.bind("echo", "alice", task("seen"))
    assert await bindings.owners("echo", task("seen", "unseen")) == {("task", "seen"): "alice"}
    assert await bindings.bind("echo", "bob", task("unseen")) == []
    assert await bindings.owners("echo", task("unseen")) == {("task", "unseen"): "bob"}


async def test_a_users_oldest_make_room_for_his_newer_ones_and_never_anothers(journal: Journal) -> None:
    clock = Clock()
    bindings = JournalBindings(journal, clock, most_per_owner=100)
    await bindings.bind("echo", "bob", task("bobs"))
    for number in range(1_001):
        clock.advance(1)
        await bindings.bind("echo", "alice", task(f"t{number}"))
    kept = JournalBindings(journal, clock)
    assert await kept.count("echo", "alice") <= 102
    assert await kept.owners("echo", task("t0", "t1000", "bobs")) == {
        ("task", "t1000"): "alice",
        ("task", "bobs"): "bob",
    }


# What names them

SHAPES: dict[str, tuple[object, Sighting]] = {
    "1.0 task": (
        {
            "jsonrpc": "2.0",
            "result": {"task": {"id": "t", "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}}},
        },
        Sighting("t", "c", "working"),
    ),
    "0.3 task": (
        {
            "jsonrpc": "2.0",
            "result": {"kind": "task", "id": "t", "contextId": "c", "status": {"state": "input-required"}},
        },
        Sighting("t", "c", "input-required"),
    ),
    "HTTP+JSON update": (
        {"statusUpdate": {"taskId": "t", "contextId": "c", "status": {"state": "TASK_STATE_AUTH_REQUIRED"}}},
        Sighting("t", "c", "auth-required"),
    ),
    "protobuf's own spelling": ({"artifact_update": {"task_id": "t", "context_id": "c"}}, Sighting("t", "c")),
    "0.1 update": ({"result": {}, "id": "t", "status": {"state": "completed"}}, Sighting("t", None, "completed")),
    "message": (
        {"message": {"messageId": "m", "contextId": "c", "parts": [{"text": "hi"}]}},
        Sighting(None, "c", text="hi"),
    ),
    "error": ({"jsonrpc": "2.0", "error": {"code": -32001}}, Sighting(error=-32001)),
    "odd": ({"jsonrpc": "2.0", "result": [1]}, Sighting()),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_an_answer_is_read_in_every_version(shape: str) -> None:
    answer, found = SHAPES[shape]
    assert sighting(answer) == found


EVENTS = b': ping\r\n\r\nevent: message\r\ndata: {"a":1}\r\n\r\ndata: x\ndata: y\n\ndata:z\r\rid: 7\n\n'


@pytest.mark.parametrize("size", range(1, len(EVENTS)))
def test_events_are_found_however_they_are_cut(size: int) -> None:
    reader = EventReader()
    pieces = [EVENTS[start : start + size] for start in range(0, len(EVENTS), size)]
    assert [event for piece in pieces for event in reader.feed(piece)] == [b'{"a":1}', b"x\ny", b"z"]


def test_an_event_without_end_takes_no_more_than_its_room() -> None:
    reader = EventReader(most_bytes=10)
    assert list(reader.feed(b"data: " + b"x" * 1000)) == []
    assert list(reader.feed(b"x" * 1000 + b"\n\ndata: y\n\n")) == [b"y"]
    assert reader.passed_over == 1


def test_of_a_stream_the_artifacts_pieces_are_not_parsed_once_its_task_is_known() -> None:
    first = b'data: {"task": {"id": "t", "status": {"state": "TASK_STATE_WORKING"}}}\n\n'
    piece = b'data: {"artifactUpdate": {"taskId": "t", "artifact": {"parts": [{"text": "hi"}]}}}\n\n'
    reader, thorough = StreamReader(), StreamReader(text=True)
    assert [seen.task for seen in reader.feed(first + piece)] == ["t"]
    assert [seen.text for seen in thorough.feed(first + piece)] == ["", "hi"]
    assert (reader.events, thorough.events) == (2, 2)
