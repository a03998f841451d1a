"""The meter in Redis keeps what every meter promises, and lets a gateway go on without Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from store import open_redis
from tests.clock import Clock
from tests.meter_contract import MeterBed, MeterContract, remaining, use
from tests.redis_server import RedisServer, redis_server
from usage import MeterUnavailable, QuotaExceeded, RedisMeter
from usage.redis_meter import RedisReservation


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    async with redis_server() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@asynccontextmanager
async def meter_at(server: RedisServer, **options: Any) -> AsyncIterator[RedisMeter]:
    """A gateway's meter, over connections of its own."""
    client = open_redis(server.settings)
    meter = RedisMeter(client, 1000, **options)
    try:
        yield meter
    finally:
        await meter.aclose()
        await client.aclose()


class TestRedisMeter(MeterContract):
    @pytest.fixture
    async def bed(self, server: RedisServer, clock: Clock) -> AsyncIterator[MeterBed]:
        async def pass_time(windows: float) -> None:
            clock.advance(60 * windows + 1)

        async with AsyncExitStack() as stack:

            def make(limit: int) -> RedisMeter:
                client = open_redis(server.settings)
                meter = RedisMeter(client, limit, window=60.0, clock=clock)
                stack.push_async_callback(client.aclose)
                stack.push_async_callback(meter.aclose)
                return meter

            yield MeterBed(make, True, 60.0, pass_time)


async def test_time_is_the_servers(server: RedisServer) -> None:
    async with meter_at(server, window=1.5) as meter:
        await use(meter, 1000)
        with pytest.raises(QuotaExceeded) as refused:
            await meter.reserve("alice", prompt=1, expected=0)
        assert 0 < refused.value.retry_after < 1.6
        await asyncio.sleep(refused.value.retry_after + 0.05)
        assert await remaining(meter) == 1000


async def test_an_account_is_one_key_that_ends_by_itself_and_names_nobody(server: RedisServer) -> None:
    async with meter_at(server) as meter:
        for user in ("alice", "al}ice{", "did:key:z6Mk"):
            await use(meter, 10, user)
        client = open_redis(server.settings)
        keys: list[Any] = await client.keys("*")
        assert len(keys) == 3
        assert all(key.startswith(b"attach:quota:60:{") and b"alice" not in key for key in keys)
        assert all([0 < await client.pttl(key) <= 241_000 for key in keys])
        await client.aclose()


async def test_one_round_trip_reserves_and_one_settles(server: RedisServer) -> None:
    async with meter_at(server) as meter:
        first = await meter.reserve("alice", prompt=10, expected=10)
        await first.top_up(10)
        await first.settle(10)  # The scripts are there from now on.
        client = open_redis(server.settings)
        before = (await client.info("commandstats"))["cmdstat_evalsha"]["calls"]
        reservation = await meter.reserve("alice", prompt=10, expected=10)
        await reservation.top_up(10)
        await reservation.settle(25, completion=15)
        after = (await client.info("commandstats"))["cmdstat_evalsha"]["calls"]
        await client.aclose()
    assert after - before == 3


async def test_what_a_killed_gateway_held_is_free_again_after_its_time(server: RedisServer, clock: Clock) -> None:
    async with meter_at(server, clock=clock) as killed, meter_at(server, clock=clock) as other:
        await killed.reserve("alice", prompt=100, expected=900)
        clock.advance(119)
        assert await remaining(other) == 0
        clock.advance(2)
        assert await remaining(other) == 1000


async def test_what_is_held_is_held_on_while_it_runs(server: RedisServer, clock: Clock) -> None:
    async with meter_at(server, clock=clock) as meter:
        reservation = await meter.reserve("alice", prompt=100, expected=900)
        for _ in range(5):
            clock.advance(100)
            await meter.renew()
        assert await remaining(meter) == 0
        await reservation.settle(0)
        await meter.renew()
        assert await remaining(meter) == 1000


async def test_holding_on_changes_nothing_of_what_is_held(server: RedisServer, clock: Clock) -> None:
    async with meter_at(server, clock=clock) as meter:
        reservation = await meter.reserve("alice", prompt=100, expected=300)
        assert isinstance(reservation, RedisReservation)
        reservation.held = 1  # As before a top-up that is under way.
        await meter.renew()
        assert await remaining(meter) == 600


async def test_what_is_held_outlives_the_loss_of_everything_in_redis(server: RedisServer) -> None:
    async with meter_at(server) as meter:
        reservation = await meter.reserve("alice", prompt=100, expected=300)
        await server.kill()
        await server.start()
        await meter.renew()
        assert await remaining(meter) == 600
        await reservation.settle(150, completion=50)
        assert await remaining(meter) == 850


@asynccontextmanager
async def without_redis(server: RedisServer, **options: Any) -> AsyncIterator[tuple[RedisMeter, list[str]]]:
    told: list[str] = []
    async with meter_at(server, on_unavailable=told.append, **options) as meter:
        await use(meter, 900)
        await server.kill()
        yield meter, told


async def test_without_redis_everything_is_let_through_and_counted(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with without_redis(server) as (meter, told):
        for _ in range(20):
            reservation = await meter.reserve("alice", prompt=500, expected=500)
            assert reservation.standing.limit is None
            assert await reservation.top_up(1_000_000)
            await reservation.settle(600, completion=100)
        with pytest.raises(MeterUnavailable):
            await meter.standing("alice")
    assert set(told) == {"allowed"}
    assert len(told) >= 20
    assert [record.message for record in caplog.records].count("quota.store_down") == 1


async def test_without_redis_nothing_is_let_through_where_that_is_wanted(server: RedisServer) -> None:
    async with without_redis(server, on_error="deny") as (meter, told):
        for _ in range(3):
            with pytest.raises(MeterUnavailable):
                await meter.reserve("alice", prompt=1, expected=1)
    assert set(told) == {"denied"}


@pytest.mark.parametrize(("on_error", "goes_on"), [("allow", True), ("deny", False)])
async def test_what_runs_when_redis_goes_is_treated_alike(server: RedisServer, on_error: str, goes_on: bool) -> None:
    async with meter_at(server, on_error=on_error) as meter:
        reservation = await meter.reserve("alice", prompt=100, expected=100)
        await server.kill()
        assert await reservation.top_up(256) is goes_on
        await reservation.settle(400, completion=300)


async def test_when_redis_is_back_it_is_asked_again(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    async with without_redis(server) as (meter, _):
        await meter.reserve("alice", prompt=1, expected=1)
        await server.start()
        async with asyncio.timeout(20):
            while True:
                reservation = await meter.reserve("alice", prompt=1, expected=1)
                if reservation.standing.limit is not None:
                    break
                await asyncio.sleep(0.05)
        with pytest.raises(QuotaExceeded):
            await meter.reserve("alice", prompt=1000, expected=1)
    assert "quota.store_back" in caplog.text


async def test_a_redis_that_does_not_answer_holds_up_one_request_a_second_and_not_all(server: RedisServer) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    client = open_redis(replace(server.settings, url=f"redis://127.0.0.1:{port}/0", timeout=0.2))
    meter = RedisMeter(client, 1000)
    loop = asyncio.get_running_loop()
    started = loop.time()
    for _ in range(200):
        await meter.reserve("alice", prompt=1, expected=1)
    assert loop.time() - started < 20  # One by one they would take 40 s.
    await client.aclose()
    silent.close()
    await silent.wait_closed()
