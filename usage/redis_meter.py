"""Quotas that several gateways share: their accounts are in Redis."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from store import RedisUnavailable, redis_errors

from .meter import (
    Meter,
    MeterUnavailable,
    PromptExceedsQuota,
    QuotaExceeded,
    Reservation,
    Standing,
    UnlimitedMeter,
)
from .quota import OnStoreError
from .redis_scripts import RENEW, RESERVE, SETTLE, STANDING, TOP_UP

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

logger = logging.getLogger(__name__)

LEAST_LEASE = 30.0
PAUSE = 1.0  # How long Redis is left alone after it failed: nobody waits for it meanwhile.
_FREE = UnlimitedMeter()


class RedisMeter(Meter):
    """As `MemoryMeter`, for all gateways with the same Redis, limit and window; one round trip for each call.

    What a gateway holds and does not settle, because it was killed, is free again after two windows, or half a minute
    where that is longer. While Redis cannot be asked, everything is let through, or nothing where `on_error` is "deny";
    a second later the next request asks again. What was held outlives a restart of Redis, what was used does not:
    within a window the limit holds again.
    """

    def __init__(
        self,
        client: Redis,
        limit: int,
        *,
        window: float = 60.0,
        on_error: OnStoreError = "allow",
        on_unavailable: Callable[[str], None] = lambda outcome: None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Ask nothing yet.

        Args:
            limit: Tokens within a window.
            window: Seconds.
            on_unavailable: Told "allowed" or "denied" of each call that Redis did not answer.
            clock: Seconds since the epoch; None: the server's, which is the same for everybody.
        """
        self.limit = limit
        self.window = window
        self.denies = on_error == "deny"
        self._on_unavailable = on_unavailable
        self._clock = clock
        self._lease = max(2 * window, LEAST_LEASE)
        self._reserve, self._top_up, self._settle, self._renew, self._standing = (
            client.register_script(text) for text in (RESERVE, TOP_UP, SETTLE, RENEW, STANDING)
        )
        self._open: set[RedisReservation] = set()
        self._renewing: asyncio.Task[None] | None = None
        self._down = False
        self._next_try = 0.0

    async def reserve(self, user: str, *, prompt: int, expected: int | None) -> Reservation:
        key, name = self._key(user), secrets.token_hex(8)
        try:
            what, number, left, reset = await self._run(
                self._reserve, key, name, prompt, -1 if expected is None else expected
            )
        except RedisUnavailable:
            if self.denies:
                raise MeterUnavailable from None
            return await _FREE.reserve(user, prompt=prompt, expected=expected)
        if what == b"prompt":
            raise PromptExceedsQuota(self.limit, left, float(reset))
        if what == b"full":
            raise QuotaExceeded(float(number), self.limit, left, float(reset))
        standing = Standing(limit=self.limit, remaining=left, reset=float(reset))
        reservation = RedisReservation(self, key, name, number, standing)
        self._open.add(reservation)
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew_on(), name="quota-renewal")
        return reservation

    async def standing(self, user: str) -> Standing:
        try:
            left, reset = await self._run(self._standing, self._key(user))
        except RedisUnavailable:
            raise MeterUnavailable from None
        return Standing(limit=self.limit, remaining=left, reset=float(reset))

    async def aclose(self) -> None:
        """Hold nothing on: what is not settled by now is free after its time."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)

    async def hold_more(self, reservation: RedisReservation, tokens: int) -> int | None:
        """The slice in which what it held is counted now; None where there are no `tokens` left. Raises as `_run`."""
        slice_ = int(await self._run(self._top_up, reservation.key, reservation.name, tokens, reservation.held))
        return slice_ or None

    async def count(self, reservation: RedisReservation, used: int, completion: int) -> None:
        """Settle it. Where Redis is not there, nothing is counted."""
        self._open.discard(reservation)
        counted = [number for pair in reservation.counted for number in pair]
        try:
            await self._run(self._settle, reservation.key, reservation.name, used, completion, *counted)
        except RedisUnavailable:
            return

    def _key(self, user: str) -> str:
        # The braces have a cluster keep together what is the user's, and a digest has none of its own.
        digest = hashlib.sha256(user.encode()).hexdigest()[:32]
        return f"attach:quota:{self.window:g}:{{{digest}}}"

    async def _run(self, script: AsyncScript, key: str, *arguments: str | int) -> Any:
        """Raises `RedisUnavailable`, at once for a while after it did."""
        if self._down:
            if time.monotonic() < self._next_try:
                self._on_unavailable("denied" if self.denies else "allowed")
                raise RedisUnavailable("down")
            self._next_try = time.monotonic() + PAUSE  # One asks; the others need not wait for the same.
        now = -1.0 if self._clock is None else self._clock()
        try:
            with redis_errors():
                result = await script(keys=[key], args=[self.window, self.limit, now, self._lease, *arguments])
        except RedisUnavailable as error:
            self._note_down(error)
            raise
        if self._down:
            self._down = False
            logger.warning("quota.store_back")
        return result

    def _note_down(self, error: RedisUnavailable) -> None:
        outcome = "denied" if self.denies else "allowed"
        if not self._down:
            logger.error("quota.store_down", extra={"error": str(error), "requests": outcome})
        self._down = True
        self._next_try = time.monotonic() + PAUSE
        self._on_unavailable(outcome)

    async def _renew_on(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            if not self._open:
                self._renewing = None
                return
            await self.renew()

    async def renew(self) -> None:
        """Hold on what is held, also after Redis lost it. The meter does that by itself."""
        users: dict[str, list[RedisReservation]] = {}
        for reservation in self._open:
            users.setdefault(reservation.key, []).append(reservation)
        for key, held in users.items():
            try:
                await self._run(self._renew, key, *(item for one in held for item in (one.name, one.held)))
                for settled in (one for one in held if one not in self._open):  # It may have been held once more.
                    await self._run(self._settle, key, settled.name, 0, 0)
            except RedisUnavailable:
                return


class RedisReservation(Reservation):
    """One request's tokens in a `RedisMeter`.

    Attributes:
        key: Its user's account.
        held: Tokens that are held, and not counted as used.
        counted: Slices of time, and the tokens that were counted there as used before the end.
    """

    __slots__ = ("_meter", "_settled", "counted", "granted", "held", "key", "name", "standing")

    def __init__(self, meter: RedisMeter, key: str, name: str, granted: int, standing: Standing) -> None:
        self.key = key
        self.name = name
        self.held = self.granted = granted
        self.counted: list[tuple[int, int]] = []
        self._meter = meter
        self.standing = standing
        self._settled = False

    async def top_up(self, tokens: int) -> bool:
        if self._settled:
            return False
        try:
            slice_ = await self._meter.hold_more(self, tokens)
        except RedisUnavailable:
            if self._meter.denies:
                return False
            self.granted += tokens
            return True
        if slice_ is None:
            return False
        self.counted.append((slice_, self.held))
        self.held = tokens
        self.granted += tokens
        return True

    async def settle(self, used: int, *, completion: int = 0) -> None:
        if not self._settled:
            self._settled = True
            await self._meter.count(self, used, completion)

    def settle_now(self, used: int, *, completion: int = 0) -> bool:
        return self._settled
