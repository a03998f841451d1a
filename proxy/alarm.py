"""A timeout that is put off all the time and hardly ever rings."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable


def _nobody() -> None: ...


class Alarm:
    """Calls `ring` once nobody has put it off for the time it was set to.

    Setting it again reads a clock and stores a number: one timer of the loop serves any number of settings, and looks
    at the number when it fires. So silence between the pieces of a stream is limited without a timer for each piece.
    """

    __slots__ = ("_deadline", "_due", "_loop", "_ring", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._deadline = math.inf
        self._due = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float | None) -> None:
        """Ring `seconds` from now instead of at any time set before; None: not at all."""
        if seconds is None:
            self._deadline = math.inf
            return
        self._deadline = deadline = self._loop.time() + seconds
        if deadline < self._due:
            self._schedule(deadline)

    def cancel(self) -> None:
        """Never ring again, and let go of the loop's timer and of who would have heard it."""
        self._ring = _nobody
        self._deadline = self._due = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = deadline
        self._timer = self._loop.call_at(deadline, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._due = math.inf
        if self._deadline <= self._loop.time():
            self._deadline = math.inf
            self._ring()
        elif self._deadline < math.inf:
            self._schedule(self._deadline)
