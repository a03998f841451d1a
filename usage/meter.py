"""How many tokens a user may cause within a sliding window, and who is within it right now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

UNKNOWN_COMPLETION = 256  # What is expected of a user's first request that names no most.
LEAST_COMPLETION = 64  # A completion that is worth beginning.
_RECENT = 0.2  # How much the last completion says about the next one.
_SLICES = 64  # of a window; what was used leaves it a slice at a time, and never early
_BUSY_SECONDS = 5.0
_MOST_SWEPT = 1000


class QuotaError(Exception):
    """No tokens for this request.

    QuotaError
    ├── QuotaExceeded       too much was used within the window: later it will do
    ├── PromptExceedsQuota  the prompt alone is more than the limit: it never will
    └── MeterUnavailable    what counts the tokens cannot be asked, and must be
    """


class QuotaExceeded(QuotaError):
    """The window is full. `retry_after`, in seconds, is when the request may fit."""

    def __init__(self, retry_after: float, limit: int, remaining: int, reset: float) -> None:
        super().__init__("token quota exceeded")
        self.retry_after = retry_after
        self.limit = limit
        self.remaining = remaining
        self.reset = reset


class PromptExceedsQuota(QuotaError):
    """The prompt is larger than the whole limit."""

    def __init__(self, limit: int, remaining: int, reset: float) -> None:
        super().__init__(f"The prompt alone is more than the {limit} tokens that a window holds: send a shorter one.")
        self.limit = limit
        self.remaining = remaining
        self.reset = reset


class MeterUnavailable(QuotaError):
    """The store of the quotas cannot be reached, and nobody is let through without it."""

    def __init__(self) -> None:
        super().__init__("Token quotas cannot be checked now: try again.")


@dataclass(slots=True)  # Not frozen: that is slow, and there is one for every request.
class Standing:
    """What a user has left. Nobody changes it.

    Attributes:
        limit: Tokens in a window; None: without limit, and then the others mean nothing.
        remaining: Tokens that could be reserved now.
        reset: Seconds until nothing that counts now counts any more.
    """

    limit: int | None = None
    remaining: int = 0
    reset: float = 0.0


class Reservation(Protocol):
    """Tokens that are held for one request until it is settled.

    Attributes:
        standing: What the user had left when these were held.
        granted: Tokens held so far, of prompt and completion together.
    """

    standing: Standing
    granted: int

    async def top_up(self, tokens: int) -> bool:
        """Hold `tokens` more for a request that used up what it had; False: they are not left, and nothing changed."""
        ...

    async def settle(self, used: int, *, completion: int = 0) -> None:
        """Free what is held, and count the tokens that were really used. Only the first call counts.

        Args:
            used: Prompt and completion together, be it less or more than what was held; 0 cancels.
            completion: Of these, what was generated: the next request's expectation is made of it.
        """
        ...

    def settle_now(self, used: int, *, completion: int = 0) -> bool:
        """As `settle`, where that takes no waiting. False: it does, and nothing was done."""
        ...


class Meter(Protocol):
    """Counts tokens per user within a sliding window.

    What was used counts from the moment it was settled or topped up, until it has left the window; what is held counts
    as long as it is held. However many requests come at a time, what a meter grants in a window never passes the limit.
    Limits by group, model or day are meters of their own in front of one another.
    """

    async def reserve(self, user: str, *, prompt: int, expected: int | None) -> Reservation:
        """Hold the prompt and the expected completion, or what is left of it, if at least 64 tokens of that are.

        Args:
            prompt: Tokens of the prompt.
            expected: The most that may be generated; None: what this user's completions recently were.

        Raises:
            QuotaError: see there. Nothing is held then.
        """
        ...

    async def standing(self, user: str) -> Standing:
        """What `user` has left. Raises `MeterUnavailable`."""
        ...


class _Free(Reservation):
    """Holds nothing, for nothing is short."""

    standing = Standing()
    granted = 2**62

    async def top_up(self, tokens: int) -> bool:
        return True

    async def settle(self, used: int, *, completion: int = 0) -> None:
        return

    def settle_now(self, used: int, *, completion: int = 0) -> bool:
        return True


class UnlimitedMeter(Meter):
    """No quotas."""

    async def reserve(self, user: str, *, prompt: int, expected: int | None) -> Reservation:
        return _Free()

    async def standing(self, user: str) -> Standing:
        return Standing()


@dataclass(slots=True)
class _Slice:
    """Tokens used within a small part of a window, and when they leave it."""

    leaves: float
    tokens: int


class _Account:
    """What one user holds and has used."""

    __slots__ = ("expected", "held", "open", "slices", "touched", "used")

    def __init__(self) -> None:
        self.slices: list[_Slice] = []  # a deque would take many times as much
        self.used = 0
        self.held = 0
        self.open = 0
        self.expected = float(UNKNOWN_COMPLETION)
        self.touched = 0.0

    def forget(self, now: float) -> None:
        """Let go what has left the window."""
        slices = self.slices
        while slices and slices[0].leaves <= now:
            self.used -= slices.pop(0).tokens

    def use(self, tokens: int, leaves: float) -> _Slice:
        slices = self.slices
        if not slices or slices[-1].leaves < leaves:
            slices.append(_Slice(leaves, 0))
        piece = slices[-1]
        piece.tokens += tokens
        self.used += tokens
        return piece


class MemoryMeter(Meter):
    """For one process, whose limit is forgotten with it.

    What was used is kept in 64 slices of a window, rounded up: it counts up to a 64th of the window longer than it
    must. A user costs about half a kilobyte, and nothing once his window has been empty for a while.
    """

    def __init__(
        self,
        limit: int,
        *,
        window: float = 60.0,
        capacity: int = 200_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Count nothing yet.

        Args:
            limit: Tokens within a window.
            window: Seconds.
            capacity: Users that are known at a time. Beyond it those that were quiet longest start afresh.
        """
        self.limit = limit
        self.window = window
        self._part = window / _SLICES
        self._quiet = window + self._part
        self._capacity = capacity
        self.now = clock
        self._accounts: dict[str, _Account] = {}  # those that were touched last are last
        self._sweeping: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many users are known."""
        return len(self._accounts)

    async def reserve(self, user: str, *, prompt: int, expected: int | None) -> Reservation:
        now = self.now()
        account = self.touch(user, now)
        limit = self.limit
        left = limit - account.used - account.held
        if prompt > limit:
            raise PromptExceedsQuota(limit, max(left, 0), self._reset(account, now))
        if expected is None:
            expected = round(account.expected)
        granted = prompt + expected
        if granted > left:
            # What only an empty window can hold must fit into one.
            needed = min(prompt + min(expected, LEAST_COMPLETION), limit)
            if needed > left:
                wait = self._wait(account, needed - left, now)
                raise QuotaExceeded(wait, limit, max(left, 0), self._reset(account, now))
            granted = left
        account.held += granted
        account.open += 1
        return _MemoryReservation(self, user, account, granted, Standing(limit, left - granted, self.window))

    async def standing(self, user: str) -> Standing:
        account = self._accounts.get(user)
        if account is None:
            return Standing(limit=self.limit, remaining=self.limit)
        now = self.now()
        account.forget(now)
        return self._standing(account, now)

    def sweep(self) -> None:
        """Drop users whose window is empty, a thousand at a time. The meter does that by itself."""
        now = self.now()
        self._sweeping = None
        for user, account in list(islice(self._accounts.items(), _MOST_SWEPT)):
            if account.touched + self._quiet > now:
                break
            account.forget(now)
            if account.open or account.slices:
                self.touch(user, now)
            else:
                del self._accounts[user]
        if not self._accounts:
            self._accounts.clear()  # The table of many users, who are gone, goes too.
        self._sweep_later(now)

    def leaves(self, now: float) -> float:
        """When what is used now no longer counts."""
        return (now // self._part + 1) * self._part + self.window

    def touch(self, user: str, now: float) -> _Account:
        """The user's account, up to date, and again among the last to be swept."""
        account = self._accounts.get(user)
        if account is None or account.touched + self._part <= now:
            account = self._brought_up(user, now)
        if account.slices and account.slices[0].leaves <= now:
            account.forget(now)
        return account

    def _brought_up(self, user: str, now: float) -> _Account:
        account = self._accounts.pop(user, None)
        if account is None:
            if len(self._accounts) >= self._capacity:
                self._make_room()
            account = _Account()
        account.touched = now
        self._accounts[user] = account
        if self._sweeping is None:
            self._sweep_later(now)
        return account

    def _make_room(self) -> None:
        oldest = islice(self._accounts.items(), _MOST_SWEPT)
        quiet = next((user for user, account in oldest if not account.open), None)
        if quiet is not None:
            del self._accounts[quiet]

    def _sweep_later(self, now: float) -> None:
        if self._sweeping is not None or not self._accounts:
            return
        oldest = next(iter(self._accounts.values()))
        wait = max(oldest.touched + self._quiet - now, 0.01)
        self._sweeping = asyncio.get_running_loop().call_later(wait, self.sweep)

    def _standing(self, account: _Account, now: float) -> Standing:
        left = max(self.limit - account.used - account.held, 0)
        return Standing(limit=self.limit, remaining=left, reset=self._reset(account, now))

    def _reset(self, account: _Account, now: float) -> float:
        if account.open:
            return self.window
        return account.slices[-1].leaves - now if account.slices else 0.0

    def _wait(self, account: _Account, short: int, now: float) -> float:
        """How long until `short` tokens are free. Nobody knows when running requests end: then a short while."""
        for piece in account.slices:
            short -= piece.tokens
            if short <= 0:
                return piece.leaves - now
        return min(self.window, _BUSY_SECONDS)


class _MemoryReservation(Reservation):
    __slots__ = ("_account", "_held", "_meter", "_settled", "_used", "_user", "_uses", "granted", "standing")

    def __init__(self, meter: MemoryMeter, user: str, account: _Account, granted: int, standing: Standing) -> None:
        self._meter = meter
        self._user = user
        self._account = account
        self.granted = self._held = granted
        self._uses: list[_Slice] = []  # what was counted before the end, in the account's slices
        self._used = 0
        self.standing = standing
        self._settled = False

    async def top_up(self, tokens: int) -> bool:
        account, now = self._account, self._meter.now()
        account.forget(now)
        if self._settled or account.used + account.held + tokens > self._meter.limit:
            return False
        # Who asks for more has used what he held: that leaves the window in its time, however long this runs.
        self._use(self._held, now)
        account.held += tokens - self._held
        self._held = tokens
        self.granted += tokens
        return True

    async def settle(self, used: int, *, completion: int = 0) -> None:
        self.settle_now(used, completion=completion)

    def settle_now(self, used: int, *, completion: int = 0) -> bool:
        if self._settled:
            return True
        self._settled = True
        meter = self._meter
        now = meter.now()
        account = meter.touch(self._user, now)
        account.open -= 1
        account.held -= self._held
        if used > self._used:
            account.use(used - self._used, meter.leaves(now))
        else:
            self._give_back(self._used - used, now)
        if completion:
            account.expected += _RECENT * (completion - account.expected)
        return True

    def _use(self, tokens: int, now: float) -> None:
        piece = self._account.use(tokens, self._meter.leaves(now))
        self._uses.append(_Slice(piece.leaves, tokens))
        self._used += tokens
        while self._uses[0].leaves <= now:
            self._uses.pop(0)

    def _give_back(self, tokens: int, now: float) -> None:
        """Undo what was counted last; what has left the window needs no undoing."""
        counted = {piece.leaves: piece for piece in self._account.slices}
        while tokens and self._uses:
            use = self._uses.pop()
            if use.leaves <= now:
                return
            taken = min(tokens, use.tokens)
            counted[use.leaves].tokens -= taken
            self._account.used -= taken
            tokens -= taken
