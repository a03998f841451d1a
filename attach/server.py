"""uvicorn with the limits, the stopping and the logs of a gateway."""

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import socket
from types import FrameType
from typing import Any, NoReturn

import httptools
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .lifeline import watch_parent
from .settings import ServerSettings

logger = logging.getLogger(__name__)

MOST_HEAD_BYTES = 64 * 1024
MOST_HEAD_FIELDS = 100
HEAD_SECONDS = 10.0
# Once an answer is out, this much of an upload nobody reads any more is swallowed, so that its sender gets to see it.
MOST_UNREAD_BYTES = 64 * 1024 * 1024

_OFFER = frozenset({b"connection", b"http2-settings", b"upgrade"})


class GatewayProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol with limits on a request's head: size, number of fields, and time to arrive whole.

    llhttp bounds none of them. Refused are 431 for the first two (RFC 6585 §5) and 408 for the last (RFC 9110 §15.5.9).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._fields = 0
        self._unread = 0
        self._hosts = 0
        self._in_head = True
        self._declined = False
        self.head_since: float | None = None  # None: no head is being waited for

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.head_since = time.monotonic()

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
            if self.head_since is None:
                self.head_since = time.monotonic()
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            if not self.transport.is_closing():
                self.refuse(400, "malformed_request", "This is not a well-formed HTTP/1.1 request.")
        if self._in_head and self._head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self.refuse(431, "head_too_large", "The request head is larger than 64 KiB.")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        if self._fields > MOST_HEAD_FIELDS:
            return
        super().on_header(name, value)
        if self.headers[-1][0] == b"host":
            self._hosts += 1

    def on_headers_complete(self) -> None:
        fields, hosts, received = self._fields, self._hosts, self._head_bytes
        self._in_head, self._fields, self._hosts, self._head_bytes, self.head_since = False, 0, 0, 0, None
        if fields > MOST_HEAD_FIELDS:
            self._refuse_head(431, "head_too_large", "The request head has more than 100 fields.")
        if received > MOST_HEAD_BYTES and self._exact_head_bytes() > MOST_HEAD_BYTES:
            self._refuse_head(431, "head_too_large", "The request head is larger than 64 KiB.")
        if hosts != 1 and (hosts or self.parser.get_http_version() == "1.1"):
            self._refuse_head(400, "malformed_request", "The request must have one Host field.")
        if self.parser.should_upgrade() and self._get_upgrade() != b"websocket":
            if self.parser.get_method() == b"CONNECT":
                self._refuse_head(400, "malformed_request", "This gateway is no forward proxy: CONNECT is not served.")
            self._declined = True
            return
        super().on_headers_complete()

    def _refuse_head(self, status: int, code: str, detail: str) -> NoReturn:
        self.refuse(status, code, detail)
        raise _Refused  # stops the parser

    def _decline_upgrade(self, rest: bytes) -> None:
        """Serve a request that offers another protocol (h2c, as Java clients do) in this one (RFC 9110 §7.8).

        The parser stops behind such a head and would take the body for the other protocol: a fresh one gets the head
        without the offer, and then the body.
        """
        if not self._declined:
            return
        self._declined = False
        fields = b"".join(b"%s: %s\r\n" % field for field in self.headers if field[0] not in _OFFER)
        head = b"%s %s HTTP/1.1\r\n%s\r\n" % (self.parser.get_method(), self.url, fields)
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(head + rest)

    def _exact_head_bytes(self) -> int:
        # What was received may hold some of the body too.
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def on_body(self, body: bytes) -> None:
        if self._declined:
            return
        super().on_body(body)
        if self.cycle.response_complete:
            self._unread += len(body)
            if self._unread > MOST_UNREAD_BYTES:
                self.transport.close()

    def on_message_complete(self) -> None:
        if not self._declined:
            super().on_message_complete()
        self._in_head, self._unread = True, 0

    def give_up_head(self) -> None:
        """Its time is over: 408, or nothing where nothing was asked (browsers open connections in advance)."""
        if self._head_bytes:
            self.refuse(408, "head_timeout", "The request head did not arrive within 10 seconds.")
        else:
            self.transport.close()

    def refuse(self, status: int, code: str, detail: str) -> None:
        """Answer what never became a request, and close."""
        body = b'{"detail": "%s", "code": "%s"}' % (detail.encode(), code.encode())
        phrase = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}[status]
        fields = [*self.server_state.default_headers, (b"content-type", b"application/json")]
        fields += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        head = b"".join(b"%s: %s\r\n" % field for field in fields)
        self.transport.write(b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (status, phrase, head, body))
        self.transport.close()
        logger.warning(
            "request.malformed", extra={"status": status, "code": code, "client": self.client and self.client[0]}
        )


class _Refused(Exception):
    """Stops the parser where a head was refused."""


class GatewayServer(uvicorn.Server):
    """Stops in three steps, and then exits with 0.

    SIGTERM or SIGINT: /readyz says 503 while connections are still accepted, for `drain_delay` seconds; then nothing
    new is accepted and what runs may end within `shutdown_grace` seconds; what runs still is ended by `app.state.stop`,
    which gives a stream its error event. A second signal skips the waiting.

    Attributes:
        listening: Set once connections are accepted.
    """

    def __init__(
        self, config: uvicorn.Config, settings: ServerSettings, *, app: FastAPI, parent_fd: int | None = None
    ) -> None:
        super().__init__(config)
        self._settings = settings
        self._app = app
        self._parent_fd = parent_fd
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
        """First signal: drain. Any further one: stop at once."""
        self.drain() if self._drain_until is None else self._stop_now()

    def drain(self) -> None:
        """Begin to stop, as on SIGTERM."""
        self._drain_until = time.monotonic() + self._settings.drain_delay
        self._app.state.readiness.draining = True

    def _stop_now(self) -> None:
        self.should_exit = self.force_exit = True

    def _parent_gone(self) -> None:
        logger.warning("server.parent_gone")
        self.should_exit = True

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Listen, and from then on notice when the process that started this one is gone."""
        await super().startup(sockets)
        if self._parent_fd is not None:
            watch_parent(self._parent_fd, self._parent_gone)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            logger.info("server.started", extra={"address": f"{host}:{port}"})
        self.listening.set()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if counter % 10 == 0:
            self._close_slow_heads()
        if self._drain_until is not None and time.monotonic() >= self._drain_until:
            self.should_exit = True
        return await super().on_tick(counter)

    def _close_slow_heads(self) -> None:
        oldest = time.monotonic() - HEAD_SECONDS
        for connection in list(self.server_state.connections):
            if isinstance(connection, GatewayProtocol) and (connection.head_since or oldest) < oldest:
                connection.give_up_head()

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Let what runs end, then end what runs."""
        grace = asyncio.get_running_loop().call_later(self._settings.shutdown_grace, self._app.state.stop)
        try:
            await super().shutdown(sockets)
        finally:
            grace.cancel()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes event loops: uvloop where it is installed; None is asyncio's own."""
    return uvicorn.Config(app="", loop="auto").get_loop_factory()


def build_server(app: FastAPI, settings: ServerSettings, *, parent_fd: int | None = None) -> GatewayServer:
    """A server for `app`, to be run on listening sockets; it ends when the other end of `parent_fd` closes."""
    config = uvicorn.Config(
        app,
        http=GatewayProtocol,
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
    return GatewayServer(config, settings, app=app, parent_fd=parent_fd)
