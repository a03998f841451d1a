"""A page of a journal costs what is on it, however much else there is, and has every message in its place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mem import EventQuery, Memory, MemoryEvent, MemorySettings, Owner, page_of
from store import Journal
from tests.mem.contract import ALICE, an_event

MANY = 2_000
STEPS = 100  # Of SQLite's machine, counted together.


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with Journal(tmp_path) as journal:
        yield journal


async def kept(journal: Journal, *events: MemoryEvent) -> None:
    await Memory(MemorySettings(retention_days=0), journal).add(*events)


async def steps(journal: Journal, query: EventQuery) -> tuple[int, list[MemoryEvent]]:
    """In hundreds, those that a page takes; and the page."""

    def counted(connection: Any) -> tuple[int, list[MemoryEvent]]:
        count = 0

        def count_up() -> int:
            nonlocal count
            count += 1
            return 0

        connection.set_progress_handler(count_up, STEPS)
        try:
            page = page_of(connection, query)
        finally:
            connection.set_progress_handler(None, 0)
        return count, page

    return await journal.read(counted)


@pytest.mark.parametrize(
    ("asked", "has"),
    [
        ({"event": "note"}, {"event": "note"}),
        ({"model": "rare"}, {"model": "rare"}),
        ({"session": "s1"}, {"session_id": "s1"}),
        ({"run": "r1"}, {"run_id": "r1"}),
        ({"task": "t1"}, {"task_id": "t1"}),
        ({"event": "note", "model": "rare"}, {"event": "note", "model": "rare"}),
    ],
    ids=["event", "model", "session", "run", "task", "both"],
)
@pytest.mark.parametrize("more", [{}, {"since": 1_760_000_000.0}, {"before": "ffffffff-ffff-7fff-8fff-ffffffffffff"}])
async def test_what_is_rare_is_found_without_a_look_at_the_rest(
    journal: Journal, asked: dict[str, Any], has: dict[str, Any], more: dict[str, Any]
) -> None:
    rest = [an_event("usual", model="usual") for _ in range(MANY)]
    await kept(journal, an_event("rare", **has), *rest)
    count, page = await steps(journal, EventQuery(owner=Owner(user=ALICE), **asked, **more))
    assert [event.answer for event in page] == ["rare"]
    assert count * STEPS < MANY


@pytest.mark.parametrize("order", [{}, {"after": "00000000-0000-7000-8000-000000000000"}], ids=["newest", "oldest"])
async def test_chats_that_part_have_each_their_own_messages(journal: Journal, order: dict[str, Any]) -> None:
    def said(*words: str) -> tuple[dict[str, str], ...]:
        return tuple({"role": "user", "content": word} for word in words)

    histories = [
        said("a"),
        said("a", "b"),
        said("a", "c"),
        said("a", "b", "d"),
        said("a", "c", "b"),
        (),
        said("b", "a"),
    ]
    events = [an_event(str(number), messages=messages) for number, messages in enumerate(histories)]
    await kept(journal, *events)
    _, page = await steps(journal, EventQuery(owner=Owner(user=ALICE), **order))
    assert sorted(page, key=lambda event: event.id) == events


async def test_a_long_chat_is_read_once_for_a_page(journal: Journal) -> None:
    history = [{"role": "user", "content": str(number)} for number in range(400)]
    await kept(journal, *(an_event(str(n), messages=tuple(history[: n * 10])) for n in range(1, 41)))
    whole, page = await steps(journal, EventQuery(owner=Owner(user=ALICE)))
    assert [len(event.messages) for event in page] == [n * 10 for n in range(40, 0, -1)]
    one, _ = await steps(journal, EventQuery(owner=Owner(user=ALICE), limit=1))
    assert whole < 2 * one
