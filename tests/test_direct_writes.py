"""What an answer waits for is written on the loop's own thread, and by the writer's where that would take waiting."""

import asyncio
import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from store import Journal, JournalError
from store.direct import COMMITS_BETWEEN_CHECKPOINTS, SLOW_SECONDS
from store.journal_file import JOURNAL_FILE

Change = Callable[[sqlite3.Connection], Any]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / ".attach"


@pytest.fixture
async def journal(directory: Path) -> AsyncIterator[Journal]:
    async with Journal(directory) as journal:
        yield journal


def rows(directory: Path) -> list[str]:
    connection = sqlite3.connect(directory / JOURNAL_FILE)
    try:
        return [key for (key,) in connection.execute("SELECT key FROM once ORDER BY key")]
    finally:
        connection.close()


def insert(key: str, connection: sqlite3.Connection) -> int:
    connection.execute("INSERT INTO once VALUES ('jti', ?, '', 4e9)", (key,))
    if key == "bad":
        raise KeyError(key)
    return threading.get_ident()


def soon(journal: Journal, change: Change) -> asyncio.Future[Any]:
    """What `change` gave, as `write_soon` told it; a second telling is an error."""
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def told(result: Any, error: Exception | None) -> None:
        assert threading.current_thread() is threading.main_thread()
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    journal.write_soon(change, told)
    return done


class Holder:
    """Another program that is writing to the same file."""

    def __init__(self, directory: Path) -> None:
        self._connection = sqlite3.connect(directory / JOURNAL_FILE, isolation_level=None)
        self._connection.execute("BEGIN IMMEDIATE")

    def let_go(self) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()


async def test_what_is_asked_for_in_one_turn_of_the_loop_is_one_commit_before_the_next(
    journal: Journal, directory: Path
) -> None:
    statements: list[str] = []

    def traced(key: str, connection: sqlite3.Connection) -> int:
        connection.set_trace_callback(statements.append)
        return insert(key, connection)

    writes = [soon(journal, partial(traced, f"{n:02}")) for n in range(20)]
    assert not any(write.done() for write in writes)
    await asyncio.sleep(0)
    assert {write.result() for write in writes} == {threading.get_ident()}
    assert statements.count("COMMIT") == 1
    assert rows(directory) == [f"{n:02}" for n in range(20)]


async def test_who_writes_already_is_waited_for_by_the_loop_a_moment_and_by_the_thread_after_that(
    journal: Journal, directory: Path
) -> None:
    holder = Holder(directory)
    write = soon(journal, partial(insert, "a"))
    await asyncio.wait({write}, timeout=0.2)  # Far longer than the loop tries by itself.
    assert not write.done()
    holder.let_go()
    assert await write != threading.get_ident()
    assert await soon(journal, partial(insert, "b")) == threading.get_ident()
    assert rows(directory) == ["a", "b"]


async def test_a_writer_that_is_soon_done_costs_no_thread(journal: Journal, directory: Path) -> None:
    holder = Holder(directory)
    first = soon(journal, partial(insert, "a"))
    await asyncio.sleep(0)
    assert not first.done()
    holder.let_go()
    second = soon(journal, partial(insert, "b"))
    assert await first == await second == threading.get_ident()
    assert journal.held_up == 1


async def test_a_change_that_fails_leaves_nothing_and_takes_nobody_with_it(journal: Journal, directory: Path) -> None:
    writes = [soon(journal, partial(insert, key)) for key in ("a", "bad", "b")]
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [int, KeyError, int]
    assert rows(directory) == ["a", "b"]


async def test_a_disk_that_is_full_is_told_and_not_a_loss(journal: Journal, directory: Path) -> None:
    def limit(pages: int, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")

    def large(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO once VALUES ('jti', 'large', ?, 4e9)", ("x" * 100_000,))

    await soon(journal, partial(limit, 1))
    await journal.write(partial(limit, 1))
    with pytest.raises(JournalError, match="full"):
        await soon(journal, large)
    await soon(journal, partial(limit, 1_000_000))
    await soon(journal, partial(insert, "a"))
    assert rows(directory) == ["a"]


async def test_after_a_slow_commit_the_loop_leaves_it_to_the_thread_until_one_is_quick(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    def slow(key: str, connection: sqlite3.Connection) -> int:
        time.sleep(1.1 * SLOW_SECONDS)  # as a disk that is busy
        return insert(key, connection)

    assert await soon(journal, partial(slow, "a")) == threading.get_ident()
    assert "journal.slow" in caplog.text
    assert await soon(journal, partial(slow, "b")) != threading.get_ident()
    assert await soon(journal, partial(insert, "c")) != threading.get_ident()
    assert await soon(journal, partial(insert, "d")) == threading.get_ident()


async def test_what_was_asked_for_is_written_before_the_journal_closes(directory: Path) -> None:
    async with Journal(directory) as journal:
        writes = [soon(journal, partial(insert, f"{n:03}")) for n in range(300)]
    await asyncio.gather(*writes)
    assert len(rows(directory)) == 300


async def test_a_journal_that_is_closed_takes_nothing(directory: Path) -> None:
    async with Journal(directory) as journal:
        await soon(journal, partial(insert, "a"))
    with pytest.raises(JournalError, match="not open"):
        soon(journal, partial(insert, "b"))
    async with journal:
        await soon(journal, partial(insert, "c"))
    assert rows(directory) == ["a", "c"]


async def test_what_is_told_may_raise_without_keeping_it_from_the_others(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    def raising(result: object, error: Exception | None) -> None:
        raise LookupError

    journal.write_soon(partial(insert, "a"), raising)
    await soon(journal, partial(insert, "b"))
    assert "journal.not_told" in caplog.text


async def test_the_log_is_written_back_to_the_file_again_and_again(journal: Journal, directory: Path) -> None:
    for n in range(COMMITS_BETWEEN_CHECKPOINTS):
        await soon(journal, partial(insert, f"{n:04}"))
    await asyncio.to_thread(wait_for_row, directory / JOURNAL_FILE, b"jti0000")


def wait_for_row(file: Path, row: bytes) -> None:
    """Until the file alone, without the log beside it, has the row."""
    end = time.monotonic() + 20
    while row not in file.read_bytes():
        assert time.monotonic() < end
        time.sleep(0.01)


async def write_and_die(directory: Path) -> None:
    async with Journal(directory) as journal:
        await soon(journal, partial(insert, "a"))
        os.kill(os.getpid(), signal.SIGKILL)


def die_after_a_write(directory: Path) -> None:
    asyncio.run(write_and_die(directory))


def test_what_was_told_survives_a_killed_process(directory: Path) -> None:
    killed = multiprocessing.get_context("spawn").Process(target=die_after_a_write, args=(directory,))
    killed.start()
    killed.join(40)
    assert killed.exitcode == -signal.SIGKILL
    assert rows(directory) == ["a"]
