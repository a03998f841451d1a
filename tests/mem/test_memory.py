# ruff: noqa: RUF001 - words of every script
"""The journal keeps what every place for memory does, and more: each message once, nothing of what was forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from mem import EventQuery, Memory, MemoryEvent, MemorySettings, Owner, Removal, event_id
from mem.ahead import look_ahead, put_in_all
from mem.reader import JournalReader
from store import Journal
from tests.clock import Clock
from tests.mem.contract import ALICE, BOB, RecordBed, RecordContract, an_event, answers

PLAIN = MemorySettings(retention_days=0)


@pytest.fixture
async def memory(journal: Journal) -> AsyncIterator[Memory]:
    async with Memory(PLAIN, journal) as memory:
        yield memory


class TestJournal(RecordContract):
    @pytest.fixture
    def bed(self, journal: Journal, memory: Memory) -> RecordBed:
        async def keep(events: Sequence[MemoryEvent]) -> None:
            await memory.add(*events)

        async def remove(removal: Removal) -> None:
            if removal.ids is None:
                await memory.forget(removal.user)
            for one in removal.ids or ():
                await memory.delete(Owner(user=removal.user), one)

        return RecordBed(keep, memory.search, remove, JournalReader(journal))


def count(connection: sqlite3.Connection) -> dict[str, int]:
    tables = ("mem_owners", "mem_events", "mem_turns", "mem_messages")
    return {table: connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in tables}


def traces(directory: Path, *words: bytes) -> list[bytes]:
    """Which of `words` stand anywhere in the files of the journal."""
    content = b"".join(path.read_bytes() for path in directory.iterdir())
    return [word for word in words if word in content]


def a_chat(turns: int, *, system: str = "Be kind.") -> list[MemoryEvent]:
    """A chat that sends all that was said before with each turn."""
    history: list[dict[str, str]] = [{"role": "system", "content": system}]
    events = []
    for turn in range(turns):
        history.append({"role": "user", "content": f"question {turn} " + "x" * 1000})
        events.append(an_event(f"answer {turn}", messages=tuple(history), session_id="s"))
        history.append({"role": "assistant", "content": f"answer {turn}"})
    return events


async def test_a_chat_that_sends_its_history_again_grows_by_what_is_new(journal: Journal, memory: Memory) -> None:
    chat = a_chat(100)
    await memory.add(*chat)
    counts = await journal.read(count)
    assert (counts["mem_events"], counts["mem_turns"], counts["mem_messages"]) == (100, 200, 200)
    (last,) = await memory.events(EventQuery(owner=Owner(user=ALICE), limit=1))
    assert last == chat[-1]
    size = await journal.read(lambda c: c.execute("PRAGMA page_count").fetchone()[0] * 4096)
    assert size < 2_000_000  # All of them written out take ten times as much.


async def test_a_chat_that_begins_otherwise_each_time_grows_by_what_is_new(journal: Journal, memory: Memory) -> None:
    """Some clients put the time into their system prompt."""
    chat = a_chat(30)
    for number, event in enumerate(chat):
        first = {"role": "system", "content": f"It is {number} o'clock."}
        await memory.add(replace(event, messages=(first, *event.messages[1:])))
    counts = await journal.read(count)
    assert counts["mem_messages"] == 30 + 30 + 29
    found = await memory.search(Owner(user=ALICE), '"question 0"', limit=10)
    assert answers(found) == ["answer 0"]


async def test_no_user_shares_a_message_with_another(journal: Journal, memory: Memory) -> None:
    said = ({"role": "user", "content": "hello"},)
    await memory.add(an_event("a", ALICE, messages=said), an_event("b", BOB, messages=said))
    assert (await journal.read(count))["mem_messages"] == 2


async def test_an_exchange_is_kept_once_for_its_request(journal: Journal, memory: Memory) -> None:
    change = await memory.prepare(an_event("first", request_id="r1"))
    for _ in range(3):
        await journal.write(change)
    await memory.add(an_event("second", request_id="r1"))
    assert answers(await memory.events(EventQuery(owner=Owner(user=ALICE)))) == ["first"]
    await memory.add(an_event("another's", BOB, request_id="r1"), an_event("a log", event="log", request_id="r1"))
    assert (await journal.read(count))["mem_events"] == 3


async def test_a_message_that_was_removed_since_it_was_seen_is_kept_again(memory: Memory) -> None:
    secret = {"role": "user", "content": "my key is sk-abcdEFGH1234abcdEFGH1234, keep it"}
    change = await memory.prepare(an_event("one", messages=(secret,)))
    await memory.add(an_event("two", messages=(secret,)))
    await memory.forget(ALICE)
    again = await memory.prepare(an_event("three", messages=(secret,)))
    await memory._journal.write(lambda connection: [change(connection), again(connection)])
    page = await memory.events(EventQuery(owner=Owner(user=ALICE)))
    kept = {"role": "user", "content": "my key is [redacted:api_key], keep it"}
    assert [event.messages for event in page] == [(kept,), (kept,)]


async def test_nothing_of_who_is_forgotten_is_left_in_the_files(
    directory: Path, journal: Journal, memory: Memory
) -> None:
    await memory.add(*a_chat(30, system="Mention turtles."), an_event("Elderberry", user="carol@example.com"))
    await memory.search(Owner(user="carol@example.com"), "elderberry", limit=1)
    words = (b"carol", b"Elderberry", b"elderberry")
    assert traces(directory, *words) == list(words)
    assert await memory.forget("carol@example.com") == 1
    assert traces(directory, *words) == []
    assert await memory.forget("carol@example.com") == 0
    assert len(await memory.events(EventQuery(owner=Owner(user=ALICE)))) == 30
    assert await memory.forget(ALICE) == 30
    assert traces(directory, b"turtles", b"Be kind", b"question", b"alice") == []
    assert set((await journal.read(count)).values()) == {0}


async def test_one_event_goes_without_a_trace_of_what_only_it_said(directory: Path, memory: Memory) -> None:
    chat = a_chat(3, system="Mention turtles.")
    last = replace(chat[2], messages=(*chat[2].messages[:-1], {"role": "user", "content": "pomegranate"}))
    await memory.add(chat[0], chat[1], last)
    assert answers(await memory.search(Owner(user=ALICE), "pomegranate", limit=9)) == ["answer 2"]
    assert await memory.delete(Owner(user=ALICE), last.id)
    await memory._index.tidy()
    await memory._journal.shrink()
    assert traces(directory, b"pomegranate", b"turtles") == [b"turtles"]


async def test_what_others_say_too_is_found_with_one_of_them(memory: Memory) -> None:
    chat = a_chat(3, system="Mention turtles.")
    await memory.add(*chat)
    owner = Owner(user=ALICE)
    assert answers(await memory.search(owner, "turtles", limit=9)) == ["answer 0"]
    await memory.delete(owner, chat[0].id)
    assert answers(await memory.search(owner, "turtles", limit=9)) == ["answer 1"]
    assert answers(await memory.search(owner, '"question 0"', limit=9)) == ["answer 1"]
    assert [len(event.messages) for event in await memory.events(EventQuery(owner=owner))] == [6, 4]


async def test_events_go_when_their_time_is_over(journal: Journal) -> None:
    clock = Clock()
    day = 86_400.0

    def aged(days: float, answer: str, user: str = ALICE) -> MemoryEvent:
        timestamp = clock() - days * day
        return an_event(answer, user, id=event_id(timestamp), timestamp=timestamp)

    memory = Memory(MemorySettings(retention_days=30), journal, clock=clock)  # Not open: nothing goes by itself.
    await memory.add(aged(29, "young"), aged(31, "old"), *(aged(40, "older", BOB) for _ in range(450)))
    assert await memory._retain() == 451
    assert answers(await memory.events(EventQuery(owner=Owner(user=ALICE)))) == ["young"]
    assert (await journal.read(count))["mem_owners"] == 1
    clock.advance(2 * day)
    assert await memory._retain() == 1
    for_ever = Memory(PLAIN, journal, clock=clock)
    await for_ever.add(aged(3650, "very old"))
    assert await for_ever._retain() == 0


async def test_what_a_killed_process_left_of_a_forgotten_user_is_removed_by_the_next(
    directory: Path, journal: Journal
) -> None:
    memory = Memory(PLAIN, journal)
    await memory.add(*a_chat(5, system="Mention turtles."))
    await journal.write(lambda connection: connection.execute("UPDATE mem_owners SET user = NULL"))
    assert traces(directory, b"turtles") == [b"turtles"]
    await memory._sweep()
    assert traces(directory, b"turtles") == []


async def test_the_index_goes_on_where_it_stood(journal: Journal) -> None:
    first = Memory(PLAIN, journal)  # Never opened: nothing indexes, as after a kill.
    await first.add(*a_chat(150))
    assert await journal.read(lambda c: c.execute("SELECT seq FROM mem_indexed").fetchone()) == (0,)
    second = Memory(PLAIN, journal)
    assert await second._index._advance()
    (mark,) = await journal.read(lambda c: c.execute("SELECT seq FROM mem_indexed").fetchone())
    assert 0 < mark < 150
    third = Memory(PLAIN, journal)
    found = await third.search(Owner(user=ALICE), "kind", limit=200)
    assert answers(found) == ["answer 0"]
    for number in (0, 75, 149):
        assert answers(await third.search(Owner(user=ALICE), f'"question {number}"', limit=9)) == [f"answer {number}"]
    rows = await journal.read(
        lambda c: c.execute("SELECT COUNT(*) FROM mem_words WHERE mem_words MATCH 'words:answer'").fetchone()
    )
    assert rows == (150,)


@pytest.mark.parametrize("indexed_first", [0, 1], ids=["before its turn", "after its turn"])
async def test_an_event_removed_while_the_index_is_being_written_leaves_nothing_in_it(
    journal: Journal, indexed_first: int
) -> None:
    chat = a_chat(3, system="Mention turtles.")
    memory = Memory(PLAIN, journal)
    await memory.add(*chat[:indexed_first])
    await memory.catch_up()
    await memory.add(*chat[indexed_first:])
    ahead = await journal.read(look_ahead)
    assert ahead is not None
    assert await memory.delete(Owner(user=ALICE), chat[0].id)
    await journal.write(partial(put_in_all, ahead))
    rows = await journal.read(
        lambda c: c.execute("SELECT rowid FROM mem_words WHERE mem_words MATCH 'words:turtles'").fetchall()
    )
    assert rows == [(2,)]  # With the next event that says it.
    for event in chat[1:]:
        await memory.delete(Owner(user=ALICE), event.id)
    await journal.write(lambda c: c.execute("INSERT INTO mem_words (mem_words) VALUES ('integrity-check')"))
    assert await journal.read(
        lambda c: c.execute("SELECT COUNT(*) FROM mem_words WHERE mem_words MATCH 'owner:1'").fetchone()
    ) == (0,)


async def test_an_index_of_an_older_version_is_built_anew(journal: Journal, memory: Memory) -> None:
    await memory.add(*a_chat(3))
    await memory._index.catch_up()
    await journal.write(lambda connection: connection.execute("UPDATE mem_indexed SET version = 0"))
    await memory.search(Owner(user=ALICE), "kind", limit=9)
    rows = await journal.read(
        lambda c: (
            c.execute("SELECT COUNT(*) FROM mem_words WHERE mem_words MATCH 'words:answer'").fetchone(),
            c.execute("SELECT version, seq FROM mem_indexed").fetchone(),
        )
    )
    assert rows == ((3,), (1, 3))


@pytest.mark.parametrize("question", ["東京", "京", '"東京 タワー"', "Überraschung", "uberraschung", "ναι", "привет"])
async def test_words_of_every_script_are_found(memory: Memory, question: str) -> None:
    await memory.add(an_event("私は東京タワーが好きです Überraschung ΝΑΙ ПРИВЕТ"), an_event("大阪"))
    assert len(await memory.search(Owner(user=ALICE), question, limit=9)) == 1


@pytest.mark.parametrize(
    ("include", "exclude", "path", "model", "wanted"),
    [
        ((), (), "/api/chat", "m", True),
        (("/v1/*",), (), "/api/chat", "m", False),
        (("/v1/*",), (), "/v1/chat/completions", None, True),
        (("llama*",), (), "/api/chat", None, True),
        (("llama*",), (), "/api/chat", "qwen", False),
        (("llama*",), (), "/api/chat", "", False),
        (("llama*",), (), "/api/chat", "llama3", True),
        (("/v1/*", "llama*"), (), "/v1/x", "llama3", True),
        (("/v1/*", "llama*"), (), "/api/x", "llama3", False),
        ((), ("*embed*",), "/api/embed", "nomic-embed-text", False),
        ((), ("/api/embed",), "/api/embed", "m", False),
        (("llama*",), ("llama3:secret",), "/api/chat", "llama3:secret", False),
    ],
)
def test_what_is_wanted_is_chosen_by_path_and_model(
    include: tuple[str, ...], exclude: tuple[str, ...], path: str, model: str | None, wanted: bool
) -> None:
    settings = MemorySettings(include=include, exclude=exclude)
    assert settings.wants(path, model) is wanted
    assert not settings.wants(path, model, remember=False)
    assert replace(settings, allow_opt_out=False).wants(path, model, remember=False) is wanted
    assert not replace(settings, backend="none").wants(path, model)
