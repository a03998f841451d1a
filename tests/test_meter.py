"""Every meter keeps the same promises; the one in memory keeps little, and not for long."""

import asyncio
import gc
import tracemalloc

import pytest

from tests.clock import Clock
from tests.meter_contract import MeterBed, MeterContract, remaining, use
from usage import MemoryMeter, QuotaExceeded, UnlimitedMeter


@pytest.fixture
def clock() -> Clock:
    return Clock()


class TestMemoryMeter(MeterContract):
    @pytest.fixture
    def bed(self, clock: Clock) -> MeterBed:
        async def pass_time(windows: float) -> None:
            clock.advance(60 * windows + 1)

        return MeterBed(lambda limit: MemoryMeter(limit, clock=clock), False, 60.0, pass_time)


async def test_nothing_leaves_a_window_early(clock: Clock) -> None:
    clock.now += 0.9
    meter = MemoryMeter(1000, clock=clock)
    await use(meter, 1000)
    clock.advance(59.999)
    assert await remaining(meter) == 0
    clock.advance(0.001 + 60 / 64)
    assert await remaining(meter) == 1000


async def test_a_user_is_known_by_no_more_than_the_slices_of_a_window(clock: Clock) -> None:
    meter = MemoryMeter(10**9, clock=clock)
    tracemalloc.start()
    try:
        for _ in range(1000):
            await use(meter, 10)
            clock.advance(0.5)
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 64_000


async def test_users_that_are_quiet_are_forgotten(clock: Clock) -> None:
    meter = MemoryMeter(1000, clock=clock)
    for number in range(1500):
        await use(meter, 10, f"user-{number}")
    held = await meter.reserve("busy", prompt=10, expected=10)
    clock.advance(61)
    await use(meter, 10, "new")
    meter.sweep()
    meter.sweep()
    assert len(meter) == 2
    await held.settle(20)
    assert await remaining(meter, "busy") == 980


async def test_a_meter_forgets_without_being_asked() -> None:
    empty = asyncio.Event()

    class Watched(MemoryMeter):
        def sweep(self) -> None:
            super().sweep()
            if not len(self):
                empty.set()

    meter = Watched(1000, window=0.05)
    for number in range(3):
        await use(meter, 10, f"user-{number}")
    async with asyncio.timeout(10):
        await empty.wait()


async def test_a_full_meter_forgets_who_was_quiet_longest_but_nobody_who_is_served(clock: Clock) -> None:
    meter = MemoryMeter(1000, capacity=3, clock=clock)
    served = await meter.reserve("served", prompt=10, expected=90)
    for number in range(5):
        await use(meter, 100, f"user-{number}")
    assert len(meter) == 3
    assert await remaining(meter, "served") == 900
    assert await remaining(meter, "user-4") == 900
    assert await remaining(meter, "user-0") == 1000
    await served.settle(100)


async def test_a_clock_that_is_set_back_loses_nothing(clock: Clock) -> None:
    meter = MemoryMeter(1000, clock=clock)
    await use(meter, 500)
    clock.advance(-30)
    await use(meter, 400)
    assert await remaining(meter) == 100


async def test_who_waits_for_running_requests_is_told_to_come_back_soon(clock: Clock) -> None:
    meter = MemoryMeter(1000, clock=clock)
    await meter.reserve("alice", prompt=500, expected=500)
    with pytest.raises(QuotaExceeded) as refused:
        await meter.reserve("alice", prompt=1, expected=1)
    assert refused.value.retry_after == 5


async def test_without_quotas_everything_fits() -> None:
    meter = UnlimitedMeter()
    reservation = await meter.reserve("alice", prompt=10**9, expected=None)
    assert await reservation.top_up(10**9)
    await reservation.settle(10**10)
    assert reservation.granted > 10**15
    assert (await meter.standing("alice")).limit is None
