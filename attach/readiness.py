"""Whether this gateway should get requests now."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

Check = Callable[[], Awaitable[bool]]


class Readiness:
    """Asks what the gateway cannot work without, at most once a second however often it is asked itself.

    Args:
        checks: What it cannot work without.
        short_of: What it can work without, but not for everybody.

    Attributes:
        draining: Set when the gateway was told to stop: not ready from then on, though it still answers.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        short_of: Mapping[str, Check] | None = None,
        timeout: float = 2.0,
        lifetime: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.draining = False
        self._checks = checks
        self._short_of = short_of or {}
        self._timeout = timeout
        self._lifetime = lifetime
        self._clock = clock
        self._asking = asyncio.Lock()
        self._asked_at = -lifetime
        self._missing: tuple[str, ...] = ()
        self._lacking: tuple[str, ...] = ()

    async def reasons(self) -> list[str]:
        """Codes of what is missing, without addresses; empty when ready."""
        async with self._asking:
            if self._clock() - self._asked_at >= self._lifetime:
                self._missing, self._lacking = await asyncio.gather(
                    self._absent(self._checks), self._absent(self._short_of)
                )
                self._asked_at = self._clock()
        return [*(["draining"] if self.draining else []), *self._missing]

    def lacks(self) -> list[str]:
        """Codes of what it is short of, as of the last `reasons`."""
        return list(self._lacking)

    async def _absent(self, checks: Mapping[str, Check]) -> tuple[str, ...]:
        answers = await asyncio.gather(*(self._ask(check) for check in checks.values()))
        return tuple(code for code, there in zip(checks, answers, strict=True) if not there)

    async def _ask(self, check: Check) -> bool:
        try:
            async with asyncio.timeout(self._timeout):
                return await check()
        except TimeoutError:
            return False
