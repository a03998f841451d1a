"""What was used once stays used, for every process of a machine; what is written survives its writer."""

import asyncio
import multiprocessing
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from store import Journal, JournalError, JournalOnce, MemoryOnce, OnceStore, OnceUnavailable, RedisOnce, open_redis
from store.journal import MOST_WAITING
from store.journal_file import JOURNAL_FILE
from store.once import SWEEP_SECONDS
from store.schema import MIGRATIONS
from tests.clock import Clock
from tests.redis_server import redis_server

Open = Callable[..., Any]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "deep" / ".attach"


@pytest.fixture
async def journal(directory: Path) -> AsyncIterator[Journal]:
    async with Journal(directory) as journal:
        yield journal


@pytest.fixture(params=["memory", "journal", "redis"])
async def make_store(request: pytest.FixtureRequest, directory: Path, clock: Clock) -> AsyncIterator[Open]:
    """Every store keeps the same promises. Called with `capacity` where that matters."""
    async with AsyncExitStack() as stack:
        if request.param == "journal":
            journal = await stack.enter_async_context(Journal(directory))
            yield partial(JournalOnce, journal, clock)
        elif request.param == "redis":
            server = await stack.enter_async_context(redis_server())
            client = open_redis(server.settings)
            stack.push_async_callback(client.aclose)
            yield partial(RedisOnce, client, clock)
        else:
            yield partial(MemoryOnce, clock)


@pytest.fixture
def store(make_store: Open) -> OnceStore:
    made: OnceStore = make_store()
    return made


def rows(directory: Path) -> list[tuple[str, str]]:
    connection = sqlite3.connect(directory / JOURNAL_FILE)
    try:
        return list(connection.execute("SELECT key, value FROM once ORDER BY key"))
    finally:
        connection.close()


@asynccontextmanager
async def busy(journal: Journal) -> AsyncIterator[None]:
    """The writer is kept from writing, so that everything that is asked for in this block comes to wait for it."""
    begun, gate = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        begun.set()
        gate.wait(10)

    holding = asyncio.create_task(journal.write(hold))
    await asyncio.to_thread(begun.wait, 10)
    yield
    await asyncio.sleep(0)  # Every task of the block has asked by now.
    gate.set()
    await holding


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_the_first_claim_gets_it_and_the_others_hear_who_has_it(store: OnceStore, clock: Clock) -> None:
    assert await store.held("nonce", "a") is None
    assert await store.claim("nonce", "a", "first", until=clock() + 60) is None
    assert await store.claim("nonce", "a", "second", until=clock() + 600) == "first"
    assert await store.held("nonce", "a") == "first"


async def test_an_empty_value_is_a_value(store: OnceStore, clock: Clock) -> None:
    assert await store.claim("jti", "a", "", until=clock() + 60) is None
    assert await store.claim("jti", "a", "", until=clock() + 60) == ""


async def test_kinds_do_not_meet(store: OnceStore, clock: Clock) -> None:
    await store.claim("nonce", "a", "x", until=clock() + 60)
    assert await store.held("jti", "a") is None
    assert await store.claim("jti", "a", "y", until=clock() + 60) is None
    assert await store.held("nonce", "a") == "x"


async def test_of_many_at_a_time_one_gets_it(store: OnceStore, clock: Clock) -> None:
    answers = await asyncio.gather(*(store.claim("jti", "a", str(n), until=clock() + 60) for n in range(50)))
    assert answers.count(None) == 1
    winner = str(answers.index(None))
    assert {answer for answer in answers if answer is not None} == {winner}


async def test_it_is_free_again_at_its_end_and_not_before(store: OnceStore, clock: Clock) -> None:
    await store.claim("jti", "a", "x", until=clock() + 60)
    clock.advance(59)
    assert await store.claim("jti", "a", "y", until=clock() + 60) == "x"
    clock.advance(1)
    assert await store.held("jti", "a") is None
    assert await store.claim("jti", "a", "y", until=clock() + 60) is None
    assert await store.held("jti", "a") == "y"


async def test_a_full_store_refuses_and_forgets_nothing(make_store: Open, clock: Clock) -> None:
    store: OnceStore = make_store(capacity=3)
    for n in range(3):
        await store.claim("jti", str(n), "x", until=clock() + 1000)
    with pytest.raises(OnceUnavailable):
        await store.claim("jti", "3", "x", until=clock() + 1000)
    assert [await store.held("jti", str(n)) for n in range(4)] == ["x", "x", "x", None]
    assert await store.claim("jti", "0", "y", until=clock() + 1000) == "x"


async def test_what_has_ended_makes_room(make_store: Open, clock: Clock) -> None:
    store: OnceStore = make_store(capacity=3)
    for n in range(3):
        await store.claim("jti", str(n), "x", until=clock() + SWEEP_SECONDS)
    clock.advance(SWEEP_SECONDS)
    assert await store.claim("jti", "3", "x", until=clock() + 1000) is None


async def test_what_has_ended_is_swept_from_the_file(journal: Journal, directory: Path, clock: Clock) -> None:
    store = JournalOnce(journal, clock)
    for n in range(5):
        await store.claim("jti", f"old-{n}", "x", until=clock() + 30)
    clock.advance(SWEEP_SECONDS)
    await store.claim("jti", "new", "x", until=clock() + 30)
    assert rows(directory) == [("new", "x")]


async def test_a_journal_that_is_closed_cannot_say_what_was_used(directory: Path, clock: Clock) -> None:
    journal = Journal(directory)
    async with journal:
        pass
    with pytest.raises(OnceUnavailable):
        await JournalOnce(journal, clock).claim("jti", "a", "x", until=clock() + 60)


def claim_all(directory: Path, name: str, start: Any, wins: Any) -> None:
    async def claim() -> int:
        async with Journal(directory) as journal:
            store = JournalOnce(journal)
            start.wait()
            answers = [await store.claim("jti", str(n), name, until=4e9) for n in range(200)]
            return answers.count(None)

    wins.put(asyncio.run(claim()))


def test_processes_that_share_a_journal_claim_each_key_once(directory: Path) -> None:
    spawned = multiprocessing.get_context("spawn")
    start, wins = spawned.Barrier(3), spawned.SimpleQueue()
    workers = [spawned.Process(target=claim_all, args=(directory, f"w{n}", start, wins)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(40)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert sum(wins.get() for _ in workers) == 200
    assert len(rows(directory)) == 200


async def test_the_file_is_for_its_owner_alone(directory: Path, clock: Clock) -> None:
    async with Journal(directory) as journal:
        await JournalOnce(journal, clock).claim("jti", "a", "x", until=clock() + 60)
        names = {JOURNAL_FILE, f"{JOURNAL_FILE}-wal", f"{JOURNAL_FILE}-shm"}
        assert set(os.listdir(directory)) == names  # noqa: PTH208
        assert mode(directory) == 0o700
        assert {mode(directory / name) for name in names} == {0o600}


async def test_a_file_that_others_could_read_is_closed_to_them(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Journal(directory):
        pass
    (directory / JOURNAL_FILE).chmod(0o644)
    async with Journal(directory):
        assert mode(directory / JOURNAL_FILE) == 0o600
    assert "journal.was_readable_by_others" in caplog.text


async def test_changes_are_written_in_their_order_and_many_at_once(journal: Journal) -> None:
    order: list[int] = []
    commits: list[str] = []

    def change(number: int, connection: sqlite3.Connection) -> int:
        order.append(number)
        connection.set_trace_callback(lambda statement: commits.append(statement) if statement == "COMMIT" else None)
        return number

    async with busy(journal):
        writes = [asyncio.create_task(journal.write(partial(change, n))) for n in range(100)]
    assert await asyncio.gather(*writes) == list(range(100)) == order
    assert len(commits) == 1


def insert(key: str, connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO once VALUES ('jti', ?, '', 4e9)", (key,))
    if key == "bad":
        raise KeyError(key)
    if key == "full":
        connection.execute("ROLLBACK")  # as SQLite does by itself when the disk is full
        raise sqlite3.OperationalError("database or disk is full")


async def test_a_change_that_fails_leaves_nothing_and_takes_nobody_with_it(journal: Journal, directory: Path) -> None:
    async with busy(journal):
        writes = [asyncio.create_task(journal.write(partial(insert, key))) for key in ("a", "bad", "b")]
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), KeyError, type(None)]
    assert [key for key, _ in rows(directory)] == ["a", "b"]


async def test_an_error_that_ends_the_transaction_is_one_for_everybody_in_it(journal: Journal, directory: Path) -> None:
    async with busy(journal):
        writes = [asyncio.create_task(journal.write(partial(insert, key))) for key in ("a", "full", "b")]
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [JournalError] * 3
    assert rows(directory) == []
    await journal.write(partial(insert, "c"))
    assert rows(directory) == [("c", "")]


async def test_a_caller_that_stops_waiting_does_not_stop_its_change(journal: Journal, directory: Path) -> None:
    async with busy(journal):
        write = asyncio.create_task(journal.write(partial(insert, "a")))
        await asyncio.sleep(0)
        write.cancel()
    await journal.write(lambda _: None)
    assert rows(directory) == [("a", "")]
    assert write.cancelled()


async def test_what_waits_is_written_before_the_journal_closes(directory: Path) -> None:
    async with Journal(directory) as journal:
        store = JournalOnce(journal)
        async with busy(journal):
            writes = [asyncio.create_task(store.claim("jti", str(n), "", until=4e9)) for n in range(600)]
    assert len(rows(directory)) == 600
    assert await asyncio.gather(*writes) == [None] * 600


async def test_no_more_waits_than_fits(journal: Journal) -> None:
    async with busy(journal):
        writes = [asyncio.create_task(journal.write(lambda _: None)) for _ in range(MOST_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(JournalError, match="too much waiting"):
            await journal.write(lambda _: None)
    await asyncio.gather(*writes)
    await journal.write(lambda _: None)


async def test_a_record_that_another_program_holds_is_an_error_and_not_a_loss(
    journal: Journal, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await journal.write(lambda connection: connection.execute("PRAGMA user_version"))
    other = sqlite3.connect(directory / JOURNAL_FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OnceUnavailable):
        await JournalOnce(journal).claim("jti", "a", "", until=4e9)
    assert "journal.write_failed" in caplog.text
    other.execute("ROLLBACK")
    other.close()
    assert await JournalOnce(journal).claim("jti", "a", "", until=4e9) is None


async def test_a_disk_that_is_full_is_an_error_and_not_a_loss(journal: Journal, directory: Path) -> None:
    store = JournalOnce(journal)
    await store.claim("jti", "a", "", until=4e9)

    def limit(pages: int, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")

    await journal.write(lambda connection: limit(1, connection))
    with pytest.raises(OnceUnavailable):
        await store.claim("jti", "b", "x" * 100_000, until=4e9)
    await journal.write(lambda connection: limit(1_000_000, connection))
    assert await store.claim("jti", "b", "y", until=4e9) is None
    assert rows(directory) == [("a", ""), ("b", "y")]


def die_after_a_claim(directory: Path) -> None:
    async def claim() -> None:
        async with Journal(directory) as journal:
            await JournalOnce(journal).claim("jti", "a", "x", until=4e9)
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(claim())


def test_what_was_committed_survives_a_killed_process(directory: Path) -> None:
    killed = multiprocessing.get_context("spawn").Process(target=die_after_a_claim, args=(directory,))
    killed.start()
    killed.join(40)
    assert killed.exitcode == -signal.SIGKILL
    assert rows(directory) == [("a", "x")]


async def test_a_file_of_an_older_version_is_brought_up_and_keeps_what_it_has(directory: Path, clock: Clock) -> None:
    async with Journal(directory) as journal:
        await JournalOnce(journal, clock).claim("jti", "a", "x", until=clock() + 60)
    newer = (*MIGRATIONS, ("CREATE TABLE more (a TEXT)", "INSERT INTO more VALUES ('; it''s here')"))
    async with Journal(directory, migrations=newer) as journal:
        assert await JournalOnce(journal, clock).held("jti", "a") == "x"
        assert await journal.write(lambda c: c.execute("SELECT a FROM more").fetchall()) == [("; it's here",)]
    async with Journal(directory, migrations=newer):
        pass


async def test_a_file_of_a_newer_version_is_left_alone(directory: Path) -> None:
    async with Journal(directory, migrations=(*MIGRATIONS, ("CREATE TABLE more (a TEXT)",))):
        pass
    with pytest.raises(JournalError, match="newer version"):
        async with Journal(directory):
            pass


async def test_a_step_that_fails_changes_nothing(directory: Path) -> None:
    with pytest.raises(JournalError, match="cannot be used"):
        async with Journal(directory, migrations=(*MIGRATIONS, ("CREATE TABLE more (a TEXT)", "NO SQL"))):
            pass
    async with Journal(directory) as journal:
        tables = await journal.write(
            lambda c: c.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        )
    assert ("once",) in tables
    assert ("more",) not in tables


@pytest.mark.parametrize("content", [b"not a database, just text" * 100, b"SQLite format 3\0" + b"\xff" * 4000])
async def test_a_damaged_file_is_named_and_kept(tmp_path: Path, content: bytes) -> None:
    (tmp_path / JOURNAL_FILE).write_bytes(content)
    with pytest.raises(JournalError, match=JOURNAL_FILE):
        async with Journal(tmp_path):
            pass
    assert (tmp_path / JOURNAL_FILE).read_bytes() == content


async def test_a_place_that_cannot_hold_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    journal = Journal(tmp_path / "file")
    with pytest.raises(JournalError, match="cannot be opened"):
        async with journal:
            pass
    with pytest.raises(JournalError, match="not open"):
        await journal.write(lambda _: None)


async def test_a_journal_that_was_closed_can_be_opened_again(directory: Path) -> None:
    journal = Journal(directory)
    for n in range(2):
        async with journal:
            assert await JournalOnce(journal).claim("jti", str(n), "", until=4e9) is None
        assert not any(thread.name == "journal" for thread in threading.enumerate())
    assert len(rows(directory)) == 2


def test_importing_the_store_opens_nothing(tmp_path: Path) -> None:
    code = "import os, store, threading; assert threading.active_count() == 1 and os.listdir() == []"
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environ, check=True, timeout=30)
