"""Time that others are given to answer, in which our own pauses do not count."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_STEPS = 10


@asynccontextmanager
async def fair_timeout(seconds: float) -> AsyncIterator[None]:
    """As asyncio.timeout, for `seconds` in which this process runs.

    A process that is not let run, because its machine is busy or was paused, cannot tell whether the other side is
    late: the answer may lie at the socket unread. So time is taken in tenths, and each counts as one however long it
    was. Raises TimeoutError.
    """
    loop = asyncio.get_running_loop()
    next_step: asyncio.TimerHandle

    def step(left: int) -> None:
        nonlocal next_step
        if left:
            next_step = loop.call_later(seconds / _STEPS, step, left - 1)
        else:
            limit.reschedule(loop.time())

    next_step = loop.call_later(seconds / _STEPS, step, _STEPS - 1)
    try:
        async with asyncio.timeout(None) as limit:
            yield
    finally:
        next_step.cancel()
