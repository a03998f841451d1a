"""SQLite puts most events into the index and Python the rest: both alike, and nothing comes in between."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from mem import EventQuery, Memory, MemoryEvent, MemorySettings, Owner
from mem.ahead import MOST_CHARACTERS, MOST_EVENTS, look_ahead, mark_of, put_in_all
from store import Journal
from store.schema import _MEMORY_WORDS, MIGRATIONS
from tests.mem.contract import ALICE, an_event, answers

OWNER = Owner(user=ALICE)
SAME = ({"role": "user", "content": "Mention turtles."},)


@pytest.fixture
def memory(journal: Journal) -> Memory:
    return Memory(MemorySettings(retention_days=0, redact="off"), journal)  # Not open: nothing goes by itself.


async def words_left(journal: Journal) -> list[str]:
    def look(connection: sqlite3.Connection) -> list[str]:
        connection.execute("CREATE VIRTUAL TABLE temp.left_over USING fts5vocab('main', 'mem_words', 'row')")
        left = [term for (term,) in connection.execute("SELECT term FROM temp.left_over")]
        connection.execute("DROP TABLE temp.left_over")
        return left

    return await journal.write(look)


async def rows_with(journal: Journal, word: str) -> list[int]:
    rows = await journal.read(
        lambda c: c.execute("SELECT rowid FROM mem_words WHERE mem_words MATCH ? ORDER BY rowid", (word,)).fetchall()
    )
    return [row for (row,) in rows]


@pytest.mark.parametrize(
    ("event", "others"),
    [
        pytest.param(an_event("a plain answer"), 0, id="plain"),
        pytest.param(an_event("an answer", reasoning="thinking", text="told"), 0, id="in three columns"),
        pytest.param(an_event("an Überraschung"), 1, id="not ASCII"),
        pytest.param(an_event("京", reasoning="私は東京タワーが好きです"), 1, id="unspaced"),
        pytest.param(an_event("before\0behind"), 1, id="a NUL"),
        pytest.param(an_event("é\0"), 1, id="as many characters as bytes but for a NUL"),
        pytest.param(an_event("called", tool_calls=({"function": {"name": "look_up"}},)), 1, id="tool calls"),
        pytest.param(an_event("told", fields={"note": "remark"}), 1, id="fields"),
        pytest.param(an_event("word " * (MOST_CHARACTERS // 5)), 1, id="long"),
        pytest.param(an_event("first", messages=SAME), 1, id="the first to say a message"),
    ],
)
async def test_every_event_is_found_and_leaves_nothing_once_it_is_removed(
    journal: Journal, memory: Memory, event: MemoryEvent, others: int
) -> None:
    await memory.add(event)
    ahead = await journal.read(look_ahead)
    assert ahead is not None
    assert len(ahead.words) == others
    await memory.catch_up()
    last_word = event.answer.replace("\0", " ").split()[-1]
    assert answers(await memory.search(OWNER, last_word, limit=9)) == [event.answer]
    assert await memory.delete(OWNER, event.id)
    assert await words_left(journal) == []
    await journal.write(lambda c: c.execute("INSERT INTO mem_words (mem_words) VALUES ('integrity-check')"))


@pytest.mark.parametrize("removed", [(0,), (2,), (0, 2), (1,), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("indexed_first", [0, 1, 2])
@pytest.mark.parametrize("own", [False, True], ids=["plain but for the first", "each with a message of its own"])
async def test_a_pass_holds_what_is_kept_when_it_is_written(
    journal: Journal, memory: Memory, own: bool, indexed_first: int, removed: Sequence[int]
) -> None:
    asked = [(*SAME, {"role": "user", "content": f"question {number}"}) if own else SAME for number in range(3)]
    events = [an_event(f"answer {number}", messages=messages) for number, messages in enumerate(asked)]
    await memory.add(*events[:indexed_first])
    await memory.catch_up()
    await memory.add(*events[indexed_first:])
    ahead = await journal.read(look_ahead)
    assert ahead is not None
    for number in removed:
        await memory.delete(OWNER, events[number].id)
    await journal.write(partial(put_in_all, ahead))
    left = [number for number in range(3) if number not in removed]
    assert await rows_with(journal, "words:answer") == [number + 1 for number in left]
    assert len(await rows_with(journal, "words:turtles")) == bool(left)
    for number in left:
        await memory.delete(OWNER, events[number].id)
    assert await words_left(journal) == []


async def test_what_says_more_after_a_removal_behind_the_pass_is_put_in_with_it(
    journal: Journal, memory: Memory
) -> None:
    long = an_event("long " * MOST_CHARACTERS)  # A pass ends with it.
    first, second, last = (an_event(answer, messages=SAME) for answer in ("one", "two", "three"))
    await memory.add(first)
    await memory.catch_up()
    await memory.add(second, long, last)
    await memory.delete(OWNER, first.id)  # The last one has its message now.
    ahead = await journal.read(look_ahead)
    assert ahead is not None
    assert (ahead.last, ahead.plain) == (3, 1)
    await memory.delete(OWNER, last.id)  # And now the second.
    await journal.write(partial(put_in_all, ahead))
    assert await rows_with(journal, "words:turtles") == [2]
    await memory.delete(OWNER, second.id)
    await memory.delete(OWNER, long.id)
    assert await words_left(journal) == []


async def test_who_was_slower_puts_in_nothing(journal: Journal, memory: Memory) -> None:
    await memory.add(an_event("first"))
    slower = await journal.read(look_ahead)
    assert slower is not None
    await memory.add(an_event("second"))
    await memory.catch_up()
    await journal.write(partial(put_in_all, slower))
    assert await journal.read(mark_of) == 2
    assert await journal.read(look_ahead) is None


async def test_a_pass_takes_so_much_that_answers_do_not_wait_for_it(journal: Journal, memory: Memory) -> None:
    await memory.add(*(an_event("short") for _ in range(MOST_EVENTS + 1)))
    ahead = await journal.read(look_ahead)
    assert ahead is not None
    assert (ahead.mark, ahead.last, ahead.plain) == (0, MOST_EVENTS, MOST_EVENTS)
    await memory.catch_up()
    half = {"role": "user", "content": "x" * (MOST_CHARACTERS // 2)}
    await memory.add(*(an_event(f"{n}", messages=({**half, "n": n},)) for n in range(3)))
    ahead = await journal.read(look_ahead)
    assert ahead is not None
    assert ahead.last - ahead.mark == 2
    assert [seq for seq, _, _ in ahead.words] == [ahead.mark + 1, ahead.mark + 2]


async def test_messages_are_put_in_as_they_were_said(journal: Journal, memory: Memory) -> None:
    said = tuple({"role": "user", "content": f"word{number}"} for number in range(12))
    await memory.add(an_event("answer", messages=said))
    phrase = " ".join(message["content"] for message in said)
    assert len(await memory.search(OWNER, f'"answer {phrase}"', limit=9)) == 1


async def test_what_an_index_of_an_older_file_held_is_found_again(directory: Path) -> None:
    async with Journal(directory, migrations=MIGRATIONS[: MIGRATIONS.index(_MEMORY_WORDS)]) as journal:
        memory = Memory(MemorySettings(retention_days=0, redact="off"), journal)
        await memory.add(an_event("tortoises"), an_event("turtles"))
        await memory.catch_up()
        assert await rows_with(journal, "turtles") == [2]
    async with Journal(directory) as journal:
        memory = Memory(MemorySettings(retention_days=0, redact="off"), journal)
        assert await journal.read(mark_of) == 0
        assert answers(await memory.search(OWNER, "turtles", limit=9)) == ["turtles"]
        assert await rows_with(journal, "tortoises") == [1]
        for event in await memory.events(EventQuery(owner=OWNER)):
            assert await memory.delete(OWNER, event.id)
        await memory._index.tidy()
        assert await words_left(journal) == []
