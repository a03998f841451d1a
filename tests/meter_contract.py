"""What every meter promises. A test class for each meter inherits these tests and gives them its `bed`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from usage import Meter, PromptExceedsQuota, QuotaExceeded, Reservation


@dataclass
class MeterBed:
    """A kind of meter and its time.

    Attributes:
        make: A meter with this limit.
        shared: All that it makes count together, as several gateways must; else each for itself.
        window: Seconds, for each of them.
        pass_time: Let that many windows pass, and a little more, as what was used may leave its window late.
    """

    make: Callable[[int], Meter]
    shared: bool
    window: float
    pass_time: Callable[[float], Awaitable[None]]


async def remaining(meter: Meter, user: str = "alice") -> int:
    return (await meter.standing(user)).remaining


async def use(meter: Meter, tokens: int, user: str = "alice") -> None:
    """Be admitted with `tokens` and use all of them."""
    reservation = await meter.reserve(user, prompt=tokens, expected=0)
    await reservation.settle(tokens)


class MeterContract:
    async def test_prompt_and_expected_completion_are_held(self, bed: MeterBed) -> None:
        meter = bed.make(1000)
        reservation = await meter.reserve("alice", prompt=100, expected=300)
        assert reservation.granted == 400
        assert reservation.standing.limit == 1000
        assert reservation.standing.remaining == await remaining(meter) == 600

    async def test_what_was_not_used_is_free_again(self, bed: MeterBed) -> None:
        meter = bed.make(1000)
        reservation = await meter.reserve("alice", prompt=100, expected=300)
        await reservation.settle(150, completion=50)
        assert await remaining(meter) == 850

    async def test_what_was_used_beyond_counts(self, bed: MeterBed) -> None:
        meter = bed.make(1000)
        reservation = await meter.reserve("alice", prompt=100, expected=100)
        await reservation.settle(900, completion=800)
        assert await remaining(meter) == 100

    async def test_more_than_the_limit_can_be_used_but_not_be_reserved(self, bed: MeterBed) -> None:
        meter = bed.make(1000)
        reservation = await meter.reserve("alice", prompt=100, expected=100)
        await reservation.settle(5000, completion=4900)
        assert await remaining(meter) == 0
        with pytest.raises(QuotaExceeded) as refused:
            await meter.reserve("alice", prompt=1, expected=0)
        assert refused.value.remaining == 0

    async def test_settling_with_nothing_cancels(self, bed: MeterBed) -> None:
        meter = bed.make(1000)
        reservation = await meter.reserve("alice", prompt=100, expected=300)
        await reservation.settle(0)
        assert await remaining(meter) == 1000

    async def test_only_the_first_settling_counts(self, bed: MeterBed) -> None:
        meter = bed.make(1000)
        reservation = await meter.reserve("alice", prompt=100, expected=300)
        await reservation.settle(200, completion=100)
        await reservation.settle(0)
        await reservation.settle(1000, completion=900)
        assert await remaining(meter) == 800
        assert not await reservation.top_up(1)

    async def test_a_reservation_is_clamped_to_what_is_left(self, bed: MeterBed) -> None:
        meter = bed.make(1000)
        reservation = await meter.reserve("alice", prompt=100, expected=1_000_000)
        assert reservation.granted == 1000
        assert await remaining(meter) == 0

    @pytest.mark.parametrize(
        ("prompt", "expected", "fits"),
        [(36, 64, True), (37, 64, False), (36, 5000, True), (37, 5000, False), (90, 10, True), (91, 10, False)],
    )
    async def test_a_request_needs_its_prompt_and_64_tokens_or_the_few_that_it_asks_for(
        self, bed: MeterBed, prompt: int, expected: int, fits: bool
    ) -> None:
        meter = bed.make(1000)
        await use(meter, 900)
        if fits:
            assert (await meter.reserve("alice", prompt=prompt, expected=expected)).granted == 100
            return
        with pytest.raises(QuotaExceeded) as refused:
            await meter.reserve("alice", prompt=prompt, expected=expected)
        assert (refused.value.limit, refused.value.remaining) == (1000, 100)
        assert 0 < refused.value.retry_after <= bed.window * 1.1
        assert 0 < refused.value.reset <= bed.window * 1.1
        assert await remaining(meter) == 100

    async def test_a_prompt_above_the_whole_limit_never_fits(self, bed: MeterBed) -> None:
        meter = bed.make(1000)
        with pytest.raises(PromptExceedsQuota) as refused:
            await meter.reserve("alice", prompt=1001, expected=1)
        assert refused.value.limit == 1000
        assert await remaining(meter) == 1000

    @pytest.mark.parametrize("prompt", [937, 1000])
    async def test_a_prompt_that_only_an_empty_window_holds_fits_into_one(self, bed: MeterBed, prompt: int) -> None:
        assert (await bed.make(1000).reserve("alice", prompt=prompt, expected=500)).granted == 1000

    async def test_an_unknown_completion_is_expected_to_have_256_tokens(self, bed: MeterBed) -> None:
        assert (await bed.make(1000).reserve("alice", prompt=10, expected=None)).granted == 266

    async def test_an_unknown_completion_is_expected_to_be_like_the_last_ones(self, bed: MeterBed) -> None:
        meter = bed.make(1_000_000)
        for _ in range(30):
            await (await meter.reserve("alice", prompt=10, expected=None)).settle(2010, completion=2000)
        assert 1900 < (await meter.reserve("alice", prompt=0, expected=None)).granted <= 2000
        assert (await meter.reserve("bob", prompt=0, expected=None)).granted == 256

    async def test_a_cancelled_request_says_nothing_about_the_next_completion(self, bed: MeterBed) -> None:
        meter = bed.make(1000)
        for _ in range(5):
            await (await meter.reserve("alice", prompt=10, expected=None)).settle(0)
        assert (await meter.reserve("alice", prompt=0, expected=None)).granted == 256

    async def test_users_do_not_share(self, bed: MeterBed) -> None:
        meter = bed.make(1000)
        await use(meter, 1000)
        assert (await meter.reserve("bob", prompt=100, expected=900)).granted == 1000

    async def test_gateways_that_count_together_do(self, bed: MeterBed) -> None:
        one, other = bed.make(1000), bed.make(1000)
        await use(one, 400)
        assert await remaining(other) == (600 if bed.shared else 1000)

    async def test_what_was_used_leaves_the_window(self, bed: MeterBed) -> None:
        meter = bed.make(1000)
        await use(meter, 1000)
        await bed.pass_time(0.5)
        with pytest.raises(QuotaExceeded):
            await meter.reserve("alice", prompt=1, expected=0)
        await bed.pass_time(0.5)
        assert await remaining(meter) == 1000

    async def test_the_window_slides(self, bed: MeterBed) -> None:
        meter = bed.make(1000)
        await use(meter, 600)
        await bed.pass_time(0.5)
        await use(meter, 400)
        await bed.pass_time(0.5)
        assert await remaining(meter) == 600

    async def test_what_is_held_stays_held_beyond_the_window(self, bed: MeterBed) -> None:
        meter = bed.make(1000)
        reservation = await meter.reserve("alice", prompt=100, expected=700)
        await bed.pass_time(1.5)
        assert await remaining(meter) == 200
        await reservation.settle(800, completion=700)
        assert await remaining(meter) == 200

    async def test_after_the_time_to_retry_it_fits(self, bed: MeterBed) -> None:
        meter = bed.make(1000)
        await use(meter, 500)
        await bed.pass_time(0.3)
        await use(meter, 500)
        with pytest.raises(QuotaExceeded) as refused:
            await meter.reserve("alice", prompt=300, expected=0)
        assert refused.value.retry_after < bed.window
        await bed.pass_time(refused.value.retry_after / bed.window)
        assert (await meter.reserve("alice", prompt=300, expected=0)).granted == 300

    async def test_a_top_up_holds_more(self, bed: MeterBed) -> None:
        meter = bed.make(1000)
        reservation = await meter.reserve("alice", prompt=100, expected=100)
        assert await reservation.top_up(256)
        assert reservation.granted == 456
        assert await remaining(meter) == 544
        await reservation.settle(300, completion=200)
        assert await remaining(meter) == 700

    async def test_a_top_up_that_is_not_left_is_refused_and_changes_nothing(self, bed: MeterBed) -> None:
        meter = bed.make(1000)
        reservation = await meter.reserve("alice", prompt=100, expected=700)
        assert not await reservation.top_up(256)
        assert (reservation.granted, await remaining(meter)) == (800, 200)
        assert await reservation.top_up(200)
        assert await remaining(meter) == 0

    async def test_what_a_long_stream_used_leaves_the_window_while_it_runs(self, bed: MeterBed) -> None:
        meter = bed.make(1000)
        reservation = await meter.reserve("alice", prompt=100, expected=700)
        assert await reservation.top_up(100)
        await bed.pass_time(1)
        assert await remaining(meter) == 900
        await reservation.settle(850, completion=750)
        assert await remaining(meter) == 950

    async def test_an_overestimated_stream_gets_back_its_own_only(self, bed: MeterBed) -> None:
        meter = bed.make(1000)
        reservation = await meter.reserve("alice", prompt=100, expected=300)
        assert await reservation.top_up(100)
        await bed.pass_time(1)
        await use(meter, 500)
        await reservation.settle(10, completion=1)
        assert await remaining(meter) == 500

    async def test_requests_that_come_together_are_not_granted_more_than_the_limit(self, bed: MeterBed) -> None:
        meters = [bed.make(10_000) for _ in range(4 if bed.shared else 1)]

        async def ask(meter: Meter) -> Reservation | None:
            try:
                return await meter.reserve("alice", prompt=20, expected=300)
            except QuotaExceeded:
                return None

        asked = await asyncio.gather(*(ask(meter) for _ in range(200 // len(meters)) for meter in meters))
        admitted = [reservation for reservation in asked if reservation is not None]
        assert len(admitted) == 31
        topped_up = await asyncio.gather(*(reservation.top_up(80) for reservation in admitted))
        assert topped_up.count(True) == 1
        assert sum(reservation.granted for reservation in admitted) == 10_000
