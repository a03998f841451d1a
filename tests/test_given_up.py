"""A record that is given up is let go: what waits for a disk that stands still stays bounded, and no tokens with it."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import pytest

from middleware import ObservedExchange, Recorder
from store import Change, Journal
from tests.test_observation import LIMIT, scope_of
from usage import MemoryMeter, Metrics, Standing, TokenCounter, UsageBackend, UsageEvent, UsageRecord
from wire import RequestReading

MANY = 1_010
KEPT = 1_000
SMALL = 100
OURS = 2  # References that a test itself has to a thing while it counts them.
LARGE = 64 * 1024 + 1  # Read in a thread, and recorded in a task.


@asynccontextmanager
async def standing_still(directory: Path) -> AsyncIterator[tuple[Journal, threading.Event]]:
    """A journal that writes nothing until the event is set."""
    gate = threading.Event()
    held = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold(connection: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(held.set)
        gate.wait(30)

    async with Journal(directory) as journal:
        holding = asyncio.create_task(journal.write(hold))
        await held.wait()
        try:
            yield journal, gate
        finally:
            gate.set()
            await holding


async def answered(recorder: Recorder, meter: MemoryMeter, size: int) -> ObservedExchange:
    """An exchange whose answer is complete, of so many bytes, and is held until it is recorded."""
    exchange = ObservedExchange(recorder, scope_of("POST", "/api/chat"), RequestReading(), plain=None, remembered=False)
    exchange.reservation = await meter.reserve("alice", prompt=10, expected=100)
    exchange.begin(lambda refusal: None)
    exchange.answer(404, [(b"content-type", b"application/json")])
    exchange.piece(bytes(size), True)
    return exchange


def recorder_of(journal: Journal, usage: UsageBackend) -> Recorder:
    return Recorder(journal=journal, counter=TokenCounter(), metrics=Metrics(), usage=usage, commit_timeout=0.05)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)


async def test_a_record_that_is_given_up_ends_its_task_and_frees_its_tokens(tmp_path: Path) -> None:
    meter = MemoryMeter(LIMIT)
    async with standing_still(tmp_path) as (journal, gate), recorder_of(journal, UsageRecord(journal)) as recorder:
        exchanges = [await answered(recorder, meter, LARGE) for _ in range(MANY)]
        kept = await asyncio.gather(*(exchange.commit() for exchange in exchanges))
        assert {len(piece) for piece in kept} == {LARGE}
        await until(lambda: len(recorder._tasks) <= KEPT)
        assert len(recorder._tasks) == KEPT
        gate.set()
        await until(lambda: not recorder._tasks)
    assert (await meter.standing("alice")).remaining == LIMIT


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["small", "large"])
async def test_what_waits_to_be_written_keeps_nothing_that_was_captured(tmp_path: Path, size: int) -> None:
    meter = MemoryMeter(LIMIT)
    async with standing_still(tmp_path) as (journal, gate), recorder_of(journal, UsageRecord(journal)) as recorder:
        exchange = await answered(recorder, meter, size)
        await exchange.commit()
        await exchange.ended(None)
        capture = exchange.capture
        del exchange
        await until(lambda: sys.getrefcount(capture) == OURS)
        gate.set()
    assert (await meter.standing("alice")).remaining == LIMIT


class Faulty(UsageBackend):
    """Has nothing to write, but a fault."""

    def changes(self, event: UsageEvent) -> Change | None:
        raise RuntimeError("a fault")

    def observe(self, event: UsageEvent) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


async def test_usage_that_cannot_be_prepared_keeps_no_tokens(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    meter = MemoryMeter(LIMIT)
    async with Journal(tmp_path) as journal, recorder_of(journal, Faulty()) as recorder:
        exchange = await answered(recorder, meter, SMALL)
        assert await exchange.commit() == bytes(SMALL)
    assert (await meter.standing("alice")).remaining == LIMIT
    assert "usage.not_prepared" in caplog.text


class _Breaks:
    """A reservation whose first top-up breaks, and no other."""

    def __init__(self) -> None:
        self.standing = Standing()
        self.granted = 1
        self.asked = 0

    async def top_up(self, tokens: int) -> bool:
        self.asked += 1
        if self.asked == 1:
            raise RuntimeError("broken")
        return True

    async def settle(self, used: int, *, completion: int = 0) -> None: ...

    def settle_now(self, used: int, *, completion: int = 0) -> bool:
        return True


async def test_a_top_up_that_breaks_is_asked_for_again() -> None:
    recorder = Recorder(journal=None, counter=TokenCounter(), metrics=Metrics())
    exchange = ObservedExchange(recorder, scope_of("POST", "/api/chat"), RequestReading(), plain=None, remembered=False)
    exchange.reservation = reservation = _Breaks()
    exchange.begin(lambda refusal: None)
    exchange.answer(200, [(b"content-type", b"application/x-ndjson")])
    line = b'{"message":{"role":"assistant","content":"%s"},"done":false}\n' % (b"word " * 400)
    exchange.piece(line, False)
    exchange.piece(line, False)
    asked = exchange.asking
    assert asked is not None
    with pytest.raises(RuntimeError):
        await asked
    exchange.piece(line, False)
    await until(lambda: reservation.asked == 2)
    await exchange.ended(None)
