"""What an exchange has just left is kept, read and forgotten like everything else, once, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from attach.__main__ import main
from mem import EventQuery, Memory, MemoryEvent, MemorySettings, Owner, event_id
from mem.copies import SINK, Copies
from mem.inbox import bring_in
from store import Delivery, Journal, Outbox, Pace
from store.schema import _INBOXES, MIGRATIONS
from tests.clock import Clock
from tests.mem.contract import ALICE, BOB, an_event, answers
from tests.mem.shelf import Shelf
from tests.mem.test_memory import a_chat, count, traces

PLAIN = MemorySettings(retention_days=0)
OWNER = Owner(user=ALICE)
DAY = 86_400.0


@pytest.fixture
def memory(journal: Journal) -> Memory:
    """Not open, so that nothing is brought in unless somebody needs it."""
    return Memory(PLAIN, journal)


def waiting(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT COUNT(*) FROM mem_inbox").fetchone()[0])


async def leave(memory: Memory, *events: MemoryEvent) -> None:
    """Write events as exchanges are written."""
    for event in events:
        await memory._journal.write(await memory.prepare(event))


async def page(memory: Memory) -> Sequence[MemoryEvent]:
    return await memory.events(EventQuery(owner=OWNER))


async def exported(memory: Memory) -> Sequence[MemoryEvent]:
    return [event async for event in memory.export(OWNER)]


READS: dict[str, Callable[[Memory, str], Awaitable[object]]] = {
    "a page": lambda memory, id: page(memory),  # noqa: A006
    "one event": lambda memory, id: memory.event(OWNER, id),  # noqa: A006
    "a search": lambda memory, id: memory.search(OWNER, "turtles", limit=5),  # noqa: A006
    "sessions": lambda memory, id: memory.sessions(OWNER, limit=5),  # noqa: A006
    "an export": lambda memory, id: exported(memory),  # noqa: A006
    "the journal's own": lambda memory, id: memory.record.events(EventQuery(owner=OWNER)),  # noqa: A006
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
async def test_every_read_sees_what_was_written_before_it(
    journal: Journal, memory: Memory, read: Callable[[Memory, str], Awaitable[object]]
) -> None:
    first, second = an_event("turtles", session_id="s"), an_event("more turtles", session_id="t")
    await leave(memory, first)
    assert await journal.read(waiting) == 1
    assert await read(memory, first.id)
    await leave(memory, second)
    another = Memory(PLAIN, journal)  # as in another process
    assert str(await read(another, second.id)).count("turtles") == str(await read(memory, second.id)).count("turtles")
    assert await read(another, second.id)
    assert [event.id for event in await page(memory)] == [second.id, first.id]


async def test_a_memory_that_is_open_brings_in_by_itself_what_it_and_others_left(
    journal: Journal, memory: Memory
) -> None:
    await leave(memory, an_event("left by another"))
    async with memory:
        for number in range(3):
            await leave(memory, an_event(str(number)))
            async with asyncio.timeout(20):
                while await journal.read(waiting):  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(0.01)
        await leave(memory, an_event("the last"))
    assert await journal.read(waiting) == 0
    assert (await journal.read(count))["mem_events"] == 5


async def test_events_are_in_the_order_in_which_they_were_written(journal: Journal, memory: Memory) -> None:
    await leave(memory, *(an_event(str(number)) for number in range(5)))
    await memory.catch_up()
    await leave(memory, *(an_event(str(number)) for number in range(5, 9)))
    assert len(await page(memory)) == 9
    rows = await journal.read(lambda c: c.execute("SELECT seq, answer FROM mem_events ORDER BY seq").fetchall())
    assert rows == [(number + 1, str(number)) for number in range(9)]


async def test_of_one_request_the_first_is_kept_and_nothing_of_the_others(journal: Journal, memory: Memory) -> None:
    said = ({"role": "user", "content": "turtles"}, {"role": "user", "content": "and whales"})
    await leave(
        memory,
        an_event("first", request_id="r", messages=said[:1]),
        an_event("second", request_id="r", messages=said),
        an_event("third", request_id="r", messages=said),
        an_event("another", BOB, request_id="r"),
    )
    assert answers(await page(memory)) == ["first"]
    assert await journal.read(count) == {"mem_owners": 2, "mem_events": 2, "mem_turns": 1, "mem_messages": 1}


async def test_what_was_said_with_an_event_that_is_refused_is_found_with_the_next_that_says_it(
    journal: Journal, memory: Memory
) -> None:
    said = ({"role": "user", "content": "turtles"},)
    await leave(
        memory,
        an_event("first", request_id="r"),
        an_event("refused", request_id="r", messages=said),
        an_event("kept", messages=said),
    )
    assert answers(await memory.search(OWNER, "turtles", limit=5)) == ["kept"]
    assert answers(await page(memory)) == ["kept", "first"]
    assert (await journal.read(count))["mem_turns"] == 1


async def test_what_has_only_just_come_is_forgotten_to_the_last_trace(
    directory: Path, journal: Journal, memory: Memory
) -> None:
    await leave(memory, *a_chat(30, system="Mention turtles."), an_event("pomegranate"), an_event("b", BOB))
    assert traces(directory, b"turtles", b"pomegranate") == [b"turtles", b"pomegranate"]
    assert await memory.forget(ALICE) == 31
    assert traces(directory, b"turtles", b"Be kind", b"question", b"pomegranate", b"alice") == []
    assert answers(await memory.events(EventQuery(owner=Owner(user=BOB)))) == ["b"]
    await leave(memory, an_event("new"))
    assert answers(await page(memory)) == ["new"]


async def test_one_event_that_has_only_just_come_is_removed_and_what_others_say_stays(
    journal: Journal, memory: Memory
) -> None:
    chat = a_chat(3, system="Mention turtles.")
    await leave(memory, *chat)
    assert await memory.delete(OWNER, chat[0].id)
    await leave(memory, *(an_event(str(number), messages=chat[2].messages) for number in range(2)))
    assert await memory.delete(OWNER, chat[2].id)
    assert [len(event.messages) for event in await page(memory)] == [6, 6, 4]
    assert answers(await memory.search(OWNER, "turtles", limit=9)) == ["answer 1"]


async def test_what_is_too_old_goes_and_what_came_meanwhile_keeps_its_words(journal: Journal) -> None:
    clock = Clock()
    memory = Memory(MemorySettings(retention_days=30), journal, clock=clock)
    said = ({"role": "user", "content": "turtles"},)

    def aged(days: float, answer: str, user: str = ALICE) -> MemoryEvent:
        timestamp = clock() - days * DAY
        return an_event(answer, user, id=event_id(timestamp), timestamp=timestamp, messages=said)

    await memory.add(aged(31, "old"))
    await leave(memory, aged(1, "young"), aged(40, "older"), aged(1, "bob's", BOB))
    assert await memory._retain() == 2
    assert [(event.answer, event.messages) for event in await page(memory)] == [("young", said)]
    assert (await journal.read(count))["mem_owners"] == 2


async def test_a_copy_gets_what_has_only_just_come_once(journal: Journal) -> None:
    shelf = Shelf()
    memory = Memory(MemorySettings(backend="tests.mem.shelf:Shelf", retention_days=0), journal, backend=shelf)
    kept, gone = [an_event(str(number)) for number in range(20)], an_event("gone")
    await leave(memory, *kept[:10], gone)
    await memory.delete(OWNER, gone.id)
    await leave(memory, *kept[10:], kept[0], kept[19])
    quick = Pace(linger=0.0, first_wait=0.01, longest_wait=0.05)
    async with Delivery(journal, sink=SINK, deliver=Copies(journal, shelf, Outbox()).deliver, pace=quick):
        async with asyncio.timeout(20):
            while len(shelf.kept) < 20:
                await shelf.changed.wait()
                shelf.changed.clear()
    assert sorted(shelf.deliveries) == sorted(event.id for event in kept)


# Other processes


async def leave_and_die(directory: Path, number: int) -> None:
    async with Journal(directory) as journal:
        memory = Memory(PLAIN, journal)
        said = ({"role": "user", "content": "turtles"},)
        for answer in ("a", "b", "c"):
            await memory._digests_of_journal()
            change = memory.prepare_now(
                an_event(f"{answer}{number} left", request_id=f"{answer}{number}", messages=said)
            )
            assert change is not None
            told = asyncio.Event()
            journal.write_soon(change, lambda result, error, told=told: told.set())  # type: ignore[misc]
            await told.wait()
        os.kill(os.getpid(), signal.SIGKILL)


def run_leave_and_die(directory: Path, number: int) -> None:
    asyncio.run(leave_and_die(directory, number))


def killed(directory: Path, number: int) -> None:
    process = multiprocessing.get_context("spawn").Process(target=run_leave_and_die, args=(directory, number))
    process.start()
    process.join(40)
    assert process.exitcode == -signal.SIGKILL


async def test_a_kill_before_events_are_brought_in_loses_and_doubles_none(directory: Path) -> None:
    for number in range(2):
        await asyncio.to_thread(killed, directory, number)
    async with Journal(directory) as journal:
        assert await journal.read(waiting) == 6
        memory = Memory(PLAIN, journal)
        assert sorted(answers(await page(memory))) == ["a0 left", "a1 left", "b0 left", "b1 left", "c0 left", "c1 left"]
        await leave(memory, an_event("again", request_id="b1"))
        assert len(await page(memory)) == 6
        assert (await journal.read(count))["mem_messages"] == 1


def test_the_operator_sees_what_a_killed_gateway_left(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    killed(directory, 0)
    monkeypatch.setenv("ATTACH_DATA_DIR", str(directory))
    for action in ("tail", "export"):
        assert main(("memory", action)) == 0
        out = capsys.readouterr().out
        assert [out.count(f"{answer} left") for answer in ("a0", "b0", "c0")] == [1, 1, 1]


def test_where_the_operator_may_not_write_he_is_told_what_he_misses(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    killed(directory, 0)
    monkeypatch.setenv("ATTACH_DATA_DIR", str(directory))
    other = sqlite3.connect(directory / "journal.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert main(("memory", "tail")) == 0
    assert "what was said last is missing" in capsys.readouterr().err
    other.execute("ROLLBACK")
    other.close()


async def keep_many(directory: Path) -> None:
    async with Journal(directory) as journal, Memory(PLAIN, journal) as memory:
        said = ({"role": "user", "content": "turtles"},)
        changes = [
            await memory.prepare(MemoryEvent(user=ALICE, event="chat", request_id=f"r{number}", messages=said))
            for number in range(600)
        ]
        await asyncio.gather(*map(journal.write, changes))


def run_keep_many(directory: Path) -> None:
    asyncio.run(keep_many(directory))


async def test_processes_that_write_the_same_requests_keep_each_once(directory: Path) -> None:
    async with Journal(directory) as journal:
        several = [
            multiprocessing.get_context("spawn").Process(target=run_keep_many, args=(directory,)) for _ in range(2)
        ]
        for process in several:
            process.start()
        memory = Memory(PLAIN, journal)
        while any(process.is_alive() for process in several):
            page_now = await page(memory)
            assert len({event.request_id for event in page_now}) == len(page_now)
            await asyncio.sleep(0.02)
        assert [process.exitcode for process in several] == [0, 0]
        assert await journal.read(waiting) == 0
        requests = await journal.read(lambda c: c.execute("SELECT request FROM mem_events").fetchall())
        assert sorted(requests) == sorted((f"r{number}",) for number in range(600))
        assert (await journal.read(count))["mem_turns"] == 1


async def test_a_file_of_before_is_read_and_written_on(directory: Path) -> None:
    before = MIGRATIONS[: MIGRATIONS.index(_INBOXES)]
    said = ({"role": "user", "content": "turtles"},)
    async with Journal(directory, migrations=before) as journal:
        await journal.write(lambda c: c.execute("INSERT INTO mem_owners (user) VALUES (?)", (ALICE,)))
        await journal.write(
            lambda c: c.execute(
                "INSERT INTO mem_events (id, owner, at, event, request, fresh, answer, reasoning, tool_calls, text,"
                " state, fields) VALUES (randomblob(16), 1, 0, 'chat', 'r', '[]', 'old', '', '[]', '', 'done', '{}')"
            )
        )
    async with Journal(directory) as journal:
        memory = Memory(PLAIN, journal)
        await leave(memory, an_event("again", request_id="r"), an_event("new", request_id="s", messages=said))
        assert sorted(answers(await page(memory))) == ["new", "old"]


async def test_nothing_is_brought_in_twice_by_changes_one_of_which_fails(journal: Journal, memory: Memory) -> None:
    async def fail() -> None:
        def wrong(connection: sqlite3.Connection) -> None:
            bring_in(connection)
            raise KeyError

        with pytest.raises(KeyError):
            await journal.write(wrong)

    await leave(memory, an_event("one"))
    change = await memory.prepare(an_event("two"))
    await asyncio.gather(fail(), journal.write(change), fail(), journal.write(partial(bring_in)))
    assert answers(await page(memory)) == ["two", "one"]
