"""The connections of a transport: how many, for whom, and for how long."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic

import httpx

from .connection import Connection, Origin

Opener = Callable[[Origin], Awaitable[Connection]]
Waiter = asyncio.Future["Connection | None"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """How many connections there may be.

    Attributes:
        max_connections: Open ones, those being opened included, to all origins together.
        max_idle: Open ones that carry nothing.
        keepalive_expiry: Seconds after which an idle one is closed. Less than what servers grant, 5 s with uvicorn:
            else requests are sent into connections that are just being closed.
    """

    max_connections: int = 1000
    max_idle: int = 250
    keepalive_expiry: float = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCounts:
    """What a pool holds right now: places taken, connections idle, requests waiting for a place."""

    open: int
    idle: int
    waiting: int


class Pool:
    """Hands out connections, one exchange each, and takes them back.

    A place is taken from before a connection is opened until it is closed. Whoever waits for one is served in order:
    with a connection to the same origin that has become free, or with the place of one that was closed.
    """

    def __init__(self, limits: PoolLimits, opener: Opener) -> None:
        self.limits = limits
        self._open = opener
        self._taken = 0
        self._idle: dict[Origin, list[Connection]] = {}
        self._idle_count = 0
        self._waiters: deque[tuple[Origin, Waiter]] = deque()
        self._opening: set[asyncio.Timeout] = set()
        self._sockets: set[Connection] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._drained: asyncio.Event | None = None

    @property
    def counts(self) -> PoolCounts:
        return PoolCounts(open=self._taken, idle=self._idle_count, waiting=len(self._waiters))

    # Taking a connection out.

    def take_idle(self, origin: Origin) -> Connection | None:
        """The connection that was used last, if it still stands: older ones are left to expire."""
        stack = self._idle.get(origin)
        while stack:
            connection = stack[-1]
            if connection.expires_at > monotonic() and connection.is_usable():
                stack.pop()
                self._idle_count -= 1
                connection.idle = False
                return connection
            connection.abort()
        return None

    async def take(self, origin: Origin, *, wait: float | None, connect: float | None) -> Connection:
        """A new connection, or one that has just become free if there is no place for another.

        Raises:
            httpx.PoolTimeout: No place became free within `wait` seconds.
            httpx.ConnectTimeout, httpx.ConnectError: The origin was not reached.
        """
        while self._drained is None:
            connection = None if self._reserve() else await self._queue(origin, wait)
            if connection is None:
                return await self._fill(origin, connect)
            if connection.is_usable():
                return connection
            connection.abort()
        raise httpx.ConnectError("The transport is closed")

    def _reserve(self) -> bool:
        """Take a place, closing the connection that has been idle for longest if none is free."""
        if self._taken >= self.limits.max_connections:
            if not self._idle_count:
                return False
            self._evict()
        self._taken += 1
        return True

    async def _queue(self, origin: Origin, wait: float | None) -> Connection | None:
        """Wait for a free connection to `origin`, or for a place (None)."""
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._waiters.append((origin, waiter))
        try:
            async with asyncio.timeout(wait):
                return await waiter
        except TimeoutError as error:
            self._leave(origin, waiter)
            raise httpx.PoolTimeout("All connections are in use") from error
        except asyncio.CancelledError:
            self._leave(origin, waiter)
            raise

    def _leave(self, origin: Origin, waiter: Waiter) -> None:
        """Pass on what was handed over just when its receiver gave up."""
        if (origin, waiter) in self._waiters:
            self._waiters.remove((origin, waiter))
        elif not waiter.cancelled() and waiter.exception() is None:
            connection = waiter.result()
            if connection is None:
                self._give_place()
            elif not connection.closed:
                self.release(connection)

    async def _fill(self, origin: Origin, connect: float | None) -> Connection:
        """Open a connection in a place that has been taken."""
        try:
            connection = await self._open_within(connect, origin)
        except BaseException:
            self._give_place()
            raise
        if self._drained is not None or connection.closed:
            connection.abort()
            self._give_place()
            raise httpx.ConnectError("The connection was closed as soon as it stood")
        connection.owner = self
        self._sockets.add(connection)
        return connection

    async def _open_within(self, seconds: float | None, origin: Origin) -> Connection:
        try:
            async with asyncio.timeout(seconds) as limit:
                self._opening.add(limit)
                try:
                    return await self._open(origin)
                finally:
                    self._opening.discard(limit)
        except TimeoutError as error:
            if self._drained is not None:
                raise httpx.ConnectError("The transport was closed") from error
            raise httpx.ConnectTimeout("The server did not accept a connection in time") from error

    # Taking it back: what an Owner of connections does.

    def release(self, connection: Connection) -> None:
        connection.reused = True
        while self._waiters:
            origin, waiter = self._waiters[0]
            if waiter.done():
                self._waiters.popleft()
            elif origin == connection.origin:
                self._waiters.popleft()
                waiter.set_result(connection)
                return
            else:
                connection.abort()
                return
        connection.idle = True
        connection.expires_at = monotonic() + self.limits.keepalive_expiry
        stack = self._idle.get(connection.origin)
        if stack is None:
            self._idle[connection.origin] = stack = []
        stack.append(connection)
        self._idle_count += 1
        if self._idle_count > self.limits.max_idle:
            self._evict()
        if self._sweep is None:
            self._sweep = connection.loop.call_later(self.limits.keepalive_expiry, self._expire, connection.loop)

    def discard(self, connection: Connection) -> None:
        if connection.idle:
            connection.idle = False
            self._idle[connection.origin].remove(connection)
            self._idle_count -= 1
        self._give_place()

    def lost(self, connection: Connection) -> None:
        self._sockets.discard(connection)
        if self._drained is not None and not self._sockets:
            self._drained.set()

    def _give_place(self) -> None:
        while self._waiters:
            _, waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._taken -= 1

    # Keeping idle ones.

    def _evict(self) -> None:
        stacks = [stack for stack in self._idle.values() if stack]
        min(stacks, key=lambda stack: stack[0].expires_at)[0].abort()

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close what has been idle for too long, and come back for the rest."""
        now = monotonic()
        for stack in self._idle.values():
            while stack and stack[0].expires_at <= now:
                stack[0].abort()
        pending = [stack[0].expires_at for stack in self._idle.values() if stack]
        self._sweep = loop.call_later(min(pending) - now, self._expire, loop) if pending else None

    # Closing.

    async def aclose(self) -> None:
        """Close every connection at once and wait until their sockets are gone. Requests fail from now on."""
        self._drained = self._drained or asyncio.Event()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for limit in self._opening:
            if not limit.expired():
                limit.reschedule(0)
        while self._waiters:
            _, waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(httpx.ConnectError("The transport is closed"))
        for connection in tuple(self._sockets):
            connection.fail(httpx.ReadError("The transport was closed"))
        if self._sockets:
            await self._drained.wait()
