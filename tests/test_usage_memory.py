"""Users who come once cost no memory for long. `ATTACH_TEST_SCALE=full` sees 100,000 of them."""

from __future__ import annotations

import asyncio
import gc
import os
import tracemalloc
from pathlib import Path

from store import Journal
from tests.clock import Clock
from tests.processes import resident_bytes
from tests.scale import scaled
from tests.test_usage import event
from usage import CountedUsage, MemoryMeter, Metrics, SeveralUsageBackends, UsageRecord

USERS = scaled(5_000, 100_000)
WINDOW = 60.0


def held_now() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def test_users_seen_once_are_forgotten_after_two_windows(tmp_path: Path) -> None:
    clock = Clock()
    meter = MemoryMeter(10_000, window=WINDOW, clock=clock)
    async with Journal(tmp_path) as journal:
        record = UsageRecord(journal, clock=clock)
        usage = SeveralUsageBackends([record, CountedUsage(Metrics(), users=True)])

        async def see(user: str) -> None:
            reservation = await meter.reserve(user, prompt=10, expected=100)
            one = event(user, user=user)
            change = usage.changes(one)
            assert change is not None
            await journal.write(change)
            await reservation.settle(17, completion=10)
            usage.observe(one)

        async def see_all(prefix: str, count: int) -> None:
            for first in range(0, count, 500):
                await asyncio.gather(*(see(f"{prefix}-{number}") for number in range(first, min(first + 500, count))))

        await see_all("before", 2_000)  # What has a size of its own is full by now.
        clock.advance(2 * WINDOW)
        _sweep_all(meter)
        tracemalloc.start()
        try:
            start, resident = held_now(), resident_bytes(os.getpid())
            await see_all("once", USERS)
            most, most_resident = held_now(), resident_bytes(os.getpid())
            assert len(meter) == USERS
            clock.advance(2 * WINDOW)
            _sweep_all(meter)
            end, end_resident = held_now(), resident_bytes(os.getpid())
        finally:
            tracemalloc.stop()
    each, kept = (most - start) / USERS, end - start
    print(f"\n{USERS} users seen once: {each:.0f} bytes each within the window, {kept} in all two windows later")  # noqa: T201
    print(f"resident MiB: {resident >> 20}, then {most_resident >> 20}, then {end_resident >> 20}")  # noqa: T201
    assert len(meter) == 0
    assert most - start > 100 * USERS
    assert end - start < (most - start) / 2


def _sweep_all(meter: MemoryMeter) -> None:
    """As the meter does by itself in time, which stands still here."""
    for _ in range(USERS // 1000 + 10):
        meter.sweep()
