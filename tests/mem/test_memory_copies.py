"""A copy gets everything once, whatever happens meanwhile, and lets go of what was forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from mem import EventQuery, Memory, MemorySettings, Owner
from mem.copies import SINK, Copies
from store import Delivery, Journal, Outbox, Pace, waiting
from tests.mem.contract import ALICE, BOB, an_event, answers
from tests.mem.shelf import Shelf
from tests.mem.test_memory_routes import CHAT, events, remembering

SETTINGS = MemorySettings(backend="tests.mem.shelf:Shelf", retention_days=0)
QUICK = Pace(linger=0.0, first_wait=0.01, longest_wait=0.05)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with Journal(tmp_path) as journal:
        yield journal


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def memory(journal: Journal, shelf: Shelf) -> Memory:
    """Not open, so that nothing is delivered unless a test has it done."""
    return Memory(SETTINGS, journal, backend=shelf)


def delivery(journal: Journal, shelf: Shelf) -> Delivery:
    return Delivery(journal, sink=SINK, deliver=Copies(journal, shelf, Outbox()).deliver, pace=QUICK)


async def until(shelf: Shelf, true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await shelf.changed.wait()
            shelf.changed.clear()


async def left(journal: Journal) -> int:
    found = (await journal.read(waiting)).get(SINK)
    return 0 if found is None else found.entries


async def drained(journal: Journal) -> None:
    async with asyncio.timeout(20):
        while await left(journal):  # noqa: ASYNC110 - the outbox tells nobody that it is empty
            await asyncio.sleep(0.01)


async def test_everything_arrives_as_it_was_kept(journal: Journal, shelf: Shelf, memory: Memory) -> None:
    kept = [an_event(str(number), user, request_id=f"{user}{number}") for number in range(150) for user in (ALICE, BOB)]
    await memory.add(*kept)
    async with delivery(journal, shelf):
        await until(shelf, lambda: len(shelf.kept) == 300)
        await drained(journal)
    assert shelf.kept == {event.id: event for event in kept}
    assert len(shelf.deliveries) == 300


async def test_what_was_kept_while_the_copy_was_away_arrives_once_it_is_back(
    journal: Journal, shelf: Shelf, memory: Memory
) -> None:
    shelf.down = True
    kept = [an_event(str(number)) for number in range(20)]
    async with delivery(journal, shelf):
        await memory.add(*kept)
        await asyncio.sleep(0)
        assert await left(journal) == 20
        shelf.down = False
        await until(shelf, lambda: len(shelf.kept) == 20)
        await drained(journal)
    assert sorted(shelf.deliveries) == sorted(event.id for event in kept)
    assert [event.timestamp for event in shelf.kept.values()] == [event.timestamp for event in kept]


async def test_what_is_forgotten_before_it_went_goes_nowhere(journal: Journal, shelf: Shelf, memory: Memory) -> None:
    first, second = an_event("one"), an_event("two")
    await memory.add(first, second, an_event("b", BOB))
    await memory.delete(Owner(user=ALICE), first.id)
    async with delivery(journal, shelf):
        await drained(journal)
        assert sorted(answers(list(shelf.kept.values()))) == ["b", "two"]
        await memory.add(an_event("three"))
        await memory.forget(ALICE)
        await drained(journal)
    assert answers(list(shelf.kept.values())) == ["b"]
    assert first.id not in shelf.deliveries


async def test_what_is_forgotten_on_its_way_is_removed_after_it_arrived(
    journal: Journal, shelf: Shelf, memory: Memory
) -> None:
    await memory.add(an_event("one"), an_event("b", BOB))
    shelf.gate.clear()
    async with delivery(journal, shelf):
        await shelf.delivering.wait()
        await memory.forget(ALICE)
        shelf.gate.set()
        await drained(journal)
    assert answers(list(shelf.kept.values())) == ["b"]


async def test_what_a_killed_worker_sent_of_a_forgotten_user_is_removed(
    journal: Journal, shelf: Shelf, memory: Memory
) -> None:
    event = an_event("one")
    await memory.add(event)
    # A worker has leased the entry, sends it, and is killed before it learns that the user was forgotten.
    await journal.write(lambda connection: connection.execute("UPDATE outbox SET lease = 'w', due = due + 1"))
    await memory.forget(ALICE)
    await shelf.deliver([event])
    async with delivery(journal, shelf):
        await drained(journal)
    assert shelf.kept == {}


async def test_forgetting_reaches_a_copy_that_is_away(journal: Journal, shelf: Shelf, memory: Memory) -> None:
    await memory.add(an_event("one"), an_event("two"))
    async with delivery(journal, shelf):
        await drained(journal)
        shelf.down = True
        await memory.forget(ALICE)
        assert await memory.events(EventQuery(owner=Owner(user=ALICE))) == []
        assert len(shelf.kept) == 2
        shelf.down = False
        await drained(journal)
    assert shelf.kept == {}


async def test_the_journal_answers_a_search_while_the_copy_is_away(
    journal: Journal, shelf: Shelf, memory: Memory
) -> None:
    await memory.add(an_event("from the journal"))
    await shelf.deliver([an_event("from the shelf")])
    assert answers(await memory.search(Owner(user=ALICE), "from", limit=5)) == ["from the shelf"]
    shelf.down = True
    assert answers(await memory.search(Owner(user=ALICE), "from", limit=5)) == ["from the journal"]


async def test_a_backend_of_ones_own_is_named_in_the_settings(tmp_path: Path) -> None:
    Shelf.made.clear()
    async with remembering(tmp_path, MEM_BACKEND="tests.mem.shelf:Shelf") as (_, client):
        await client.post("/api/chat", json=CHAT)
        (event,) = await events(client)
        (shelf,) = Shelf.made
        await until(shelf, lambda: event["id"] in shelf.kept)
        assert shelf.kept[event["id"]].answer == "Sea grass."
