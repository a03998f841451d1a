"""uvicorn with the limits, the stopping and the logs of a gateway."""

import asyncio
import gc
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from socket import socket
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette

from .lifeline import watch_parent
from .limits import Limits
from .listener import address_of
from .protocol import GatewayProtocol
from .settings import ServerSettings

logger = logging.getLogger(__name__)

_MOST_TAKEN_OVER = 64  # In a tenth of a second.


class GatewayConfig(uvicorn.Config):
    """uvicorn's settings with the `limits` of a `GatewayProtocol`."""

    def __init__(self, app: Starlette, *, limits: Limits, **options: Any) -> None:
        super().__init__(app, http=GatewayProtocol, timeout_keep_alive=limits.idle_seconds, **options)
        self.limits = limits


class GatewayServer(uvicorn.Server):
    """Stops in three steps, and then exits with 0.

    SIGTERM or SIGINT: /readyz says 503 while connections are still accepted, for `drain_delay` seconds; then nothing
    new is accepted and what runs may end within `shutdown_grace` seconds; what runs still is ended by `app.state.stop`,
    which gives a stream its error event. A second signal cuts everything off.

    Attributes:
        listening: Set once connections are accepted.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        settings: ServerSettings,
        *,
        app: Starlette,
        others: Sequence[socket] = (),
        parent_fd: int | None = None,
    ) -> None:
        """`others`: where workers beside this one listen; who waits there for too long is served here."""
        super().__init__(config)
        self._settings = settings
        self._others = others
        self._somebody_waits = select.poll()
        self._waited: set[int] = set()
        self._taken: set[asyncio.Task[Any]] = set()
        self._app = app
        self._parent_fd = parent_fd
        self._signals = 0
        self._drain_until: float | None = None
        self.listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn, but the signal is not raised again at the end: a stop that was asked for is a success."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Only counts: a signal comes in the middle of anything, and `on_tick` is never far."""
        self._signals += 1
        self.force_exit = self._signals > 1  # noticed wherever uvicorn waits

    def drain(self) -> None:
        """Begin to stop, as on SIGTERM."""
        if self._drain_until is not None:
            return
        logger.info("server.draining", extra={"seconds": self._settings.drain_delay})
        self._drain_until = time.monotonic() + self._settings.drain_delay
        self._app.state.readiness.draining = True
        # Clients with a connection are told to come back on another, which may lead elsewhere.
        self.config.encoded_headers.append((b"connection", b"close"))

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Listen, and from then on notice when the process that started this one is gone."""
        await super().startup(sockets)
        if self._parent_fd is not None:
            watch_parent(self._parent_fd, self._parent_gone)
        for other in self._others:
            other.setblocking(False)
            self._somebody_waits.register(other, select.POLLIN)
        for listener in sockets or []:
            logger.info("server.started", extra={"address": address_of(listener), "pid": os.getpid()})
        self.listening.set()

    def _parent_gone(self) -> None:
        logger.warning("server.parent_gone")
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if self._signals:
            self.drain()
        if self.force_exit or (self._drain_until is not None and time.monotonic() >= self._drain_until):
            self.should_exit = True
        if self._others and self._drain_until is None:
            self._take_over()
        if counter % 10 == 0:
            for connection in tuple(self.server_state.connections):
                if isinstance(connection, GatewayProtocol):
                    connection.close_if_overdue()
        return await super().on_tick(counter)

    def _take_over(self) -> None:
        """Serve callers that wait for another worker since the last tick: it may be busy, stopping, or not started."""
        loop = asyncio.get_running_loop()
        waited, self._waited = self._waited, {fd for fd, _ in self._somebody_waits.poll(0)}
        for other in self._others:
            if other.fileno() not in waited & self._waited:
                continue
            with suppress(OSError):  # Everybody is served.
                for _ in range(_MOST_TAKEN_OVER):
                    connection, _ = other.accept()
                    connection.setblocking(False)
                    task = loop.create_task(loop.connect_accepted_socket(self._protocol, connection))
                    self._taken.add(task)
                    task.add_done_callback(self._taken.discard)

    def _protocol(self) -> GatewayProtocol:
        return GatewayProtocol(self.config, self.server_state, self.lifespan.state)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Let what runs end, then end what runs."""
        logger.info("server.stopping", extra={"connections": len(self.server_state.connections)})
        for other in self._others:
            other.close()
        grace = asyncio.get_running_loop().call_later(self._settings.shutdown_grace, self._app.state.stop)
        try:
            await super().shutdown(sockets)
        finally:
            grace.cancel()
        if self.force_exit:
            await self._cut_off()
        logger.info("server.stopped")

    async def _cut_off(self) -> None:
        """What uvicorn leaves undone when it is forced: end the requests, and close what the app has opened."""
        for task in self.server_state.tasks:
            task.cancel()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=1.0)
        await self.lifespan.shutdown()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes event loops: uvloop where it is installed; None is asyncio's own."""
    return uvicorn.Config(app="", loop="auto", log_config=None).get_loop_factory()


def spare_the_collector() -> None:
    """Have the garbage collector look at requests alone, and less often. For a process that does nothing but serve.

    What stands by now stands to the end. As Python sets it, it runs after every 700 containers that were made and not
    yet let go, as many as twenty requests hold, and takes a fifth of the CPU to find next to nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def build_server(
    app: Starlette,
    settings: ServerSettings,
    *,
    others: Sequence[socket] = (),
    parent_fd: int | None = None,
    limits: Limits | None = None,
) -> GatewayServer:
    """A server for `app`, to be run on listening sockets; it ends when the other end of `parent_fd` closes."""
    config = GatewayConfig(
        app,
        limits=limits or Limits(),
        ws="none",
        lifespan="on",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        headers=[("server", "attach-gateway")],
        log_config=None,
        # Ends what even `app.state.stop` did not.
        timeout_graceful_shutdown=round(settings.shutdown_grace) + 2,
    )
    return GatewayServer(config, settings, app=app, others=others, parent_fd=parent_fd)
