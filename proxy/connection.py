"""One socket to an origin."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
import ssl
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import httpx

from .alarm import Alarm

if TYPE_CHECKING:
    from .exchange import Exchange

logger = logging.getLogger(__name__)

MAX_BUFFERED_BYTES = 65_536  # asyncio's own high-water mark for writing; reads come in up to 256 KiB.
MAX_JOINED_BYTES = 65_536


class Origin(NamedTuple):
    """Where requests are sent (RFC 9110 §4.3.1). `host` is a name or an address, IPv6 without brackets."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: httpx.URL) -> Origin:
        """Raises httpx.UnsupportedProtocol unless the URL is http or https."""
        scheme = url.scheme
        if scheme not in {"http", "https"} or not url.host:
            raise httpx.UnsupportedProtocol("The URL needs a host, and http:// or https:// before it")
        return cls(scheme, url.raw_host.decode("ascii"), url.port or (443 if scheme == "https" else 80))


class Owner(Protocol):
    """What keeps connections between their exchanges."""

    def release(self, connection: Connection) -> None:
        """An exchange has ended and another may follow."""

    def discard(self, connection: Connection) -> None:
        """The connection is being closed: its place is free. Called once."""

    def lost(self, connection: Connection) -> None:
        """The socket is gone. Called once, after `discard`."""


class Connection(asyncio.Protocol):
    """Carries one exchange at a time. Closed by `abort` alone, so that nothing lingers."""

    __slots__ = (
        "_fd",
        "_made",
        "_poll",
        "_stalled",
        "_tls",
        "_unsent",
        "_writable",
        "closed",
        "exchange",
        "expires_at",
        "idle",
        "loop",
        "origin",
        "owner",
        "reading_paused",
        "reused",
        "sending",
        "silence",
        "transport",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, origin: Origin) -> None:
        self.loop = loop
        self.origin = origin
        self.exchange: Exchange | None = None
        self.silence = Alarm(loop, self._on_silence)
        self.transport: asyncio.Transport  # From connection_made on.
        self.closed = False
        self._made = False
        self.owner: Owner | None = None
        self.idle = False
        self.reused = False
        self.sending = False  # Not all of the request is out yet.
        self.expires_at = 0.0
        self._stalled = Alarm(loop, self._on_stalled)
        self._unsent = 0
        self._writable: asyncio.Future[None] | None = None
        self.reading_paused = False

    # State.

    def is_usable(self) -> bool:
        """Nothing has happened on the idle socket: neither its end nor bytes that nobody asked for.

        Asks the kernel, since the loop may not have come to it yet.
        """
        return not self.closed and not self.transport.is_closing() and not self._poll.poll(0)

    # Sending.

    def write(self, head: bytes, body: bytes) -> None:
        """Send both, with one call of the system where that costs no large copy."""
        if len(body) <= MAX_JOINED_BYTES:
            self.transport.write(head + body if body else head)
        else:
            self.transport.writelines((head, body))

    async def write_pieces(self, *pieces: bytes) -> bool:
        """Send more, and wait until the peer has taken enough of it; False: the connection takes no more."""
        if self.closed or self.transport.is_closing():
            return False
        self.transport.writelines(pieces)
        if self._writable is not None:
            await self._writable
        return not self.closed

    def pause_writing(self) -> None:
        self.sending = True
        self._writable = self.loop.create_future()
        self._unsent = self.transport.get_write_buffer_size()
        if self.exchange is not None:
            self._stalled.set(self.exchange.timeouts.write)

    def resume_writing(self) -> None:
        self._stalled.set(None)
        self._wake_writer()
        self.check_sent()

    def check_sent(self) -> None:
        """Once all of the request is out, it is the server's turn: from then on its silence is limited."""
        exchange = self.exchange
        self.sending = self._writable is not None or (exchange is not None and exchange.uploading)
        if exchange is not None and exchange.waiter is not None and not self.sending:
            self.silence.set(exchange.timeouts.read)

    def stop_sending(self) -> None:
        """The rest of the request is not wanted: nothing waits for it to leave, and no other request can follow."""
        self._stalled.set(None)
        self.sending = False
        if self.exchange is not None:
            self.exchange.closes = True

    def _wake_writer(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def _on_stalled(self) -> None:
        if self._writable is None or self.exchange is None:
            return
        unsent = self.transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._unsent = unsent
            self._stalled.set(self.exchange.timeouts.write)
        else:
            self.fail(httpx.WriteTimeout("The server does not take the request"))

    # Receiving.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's has the methods, but not the base class.
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        self._fd = sock.fileno()
        self._made = True
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self._receive_unsolicited()
            return
        reader = exchange.reader
        sink = exchange.sink
        if sink is not None and (piece := reader.sole(data)):
            self.silence.set(exchange.timeouts.read)
            exchange.hand_on(sink, piece, data)
            return
        try:
            reader.feed(data)
        except httpx.RemoteProtocolError as error:
            self.fail(error)
            return
        if reader.complete:
            self._complete(exchange)
        elif sink is not None:
            self.silence.set(exchange.timeouts.read)
            if reader.pieces:
                exchange.hand_on(sink, reader.take(), b"")
            return
        elif reader.buffered >= MAX_BUFFERED_BYTES and not self.reading_paused:
            self.reading_paused = True
            self.transport.pause_reading()
        exchange.wake()

    def resume_reading(self) -> None:
        """Let more arrive, now that what was buffered is taken."""
        if self.reading_paused and not self.closed:
            self.reading_paused = False
            self.transport.resume_reading()

    def eof_received(self) -> None:
        exchange = self.exchange
        if exchange is None:
            self.abort()
            return
        if self._tls is not None and not said_goodbye(self._tls):
            self.fail(httpx.RemoteProtocolError("The connection was cut: TLS was not ended"))
            return
        try:
            exchange.reader.feed_eof()
        except httpx.RemoteProtocolError as error:
            self.fail(error)
            return
        self._complete(exchange)
        exchange.wake()

    def connection_lost(self, error: Exception | None) -> None:
        if self.exchange is not None and error is not None and self._tls is None:
            self._receive_last_words()
        if error is None:
            self.fail(httpx.RemoteProtocolError("The server closed the connection without ending the response"))
        elif self.sending:
            self.fail(httpx.WriteError("The connection broke while the request was being sent"))
        else:
            self.fail(httpx.ReadError("The connection broke before the response was complete"))
        if self.owner is not None:
            self.owner.lost(self)

    def _receive_last_words(self) -> None:
        """Read what the peer said before it reset the connection.

        A server that refuses an upload answers and closes; sending on then breaks the connection under the answer.
        """
        while self.exchange is not None:
            try:
                data = os.read(self._fd, MAX_BUFFERED_BYTES)
            except OSError:
                return
            if not data:
                return
            self.data_received(data)

    def _receive_unsolicited(self) -> None:
        if not self.closed:
            logger.warning("transport.unsolicited_bytes", extra={"host": self.origin.host, "port": self.origin.port})
            self.abort()

    def _on_silence(self) -> None:
        # While the request is on its way the server may be silent; `check_sent` sets the alarm again after that.
        if self.exchange is not None and self.exchange.waiter is not None and not self.sending:
            self.fail(httpx.ReadTimeout("The server is silent"))

    # Ending.

    def _complete(self, exchange: Exchange) -> None:
        reader = exchange.reader
        owner = self.owner
        reusable = (
            reader.keep_alive
            and not reader.excess
            and not exchange.closes
            and not self.sending
            and not self.transport.get_write_buffer_size()
            and not self.transport.is_closing()
        )
        self.exchange = None
        if exchange.uploading:
            exchange.cut_upload()
        if reader.excess:
            logger.warning("transport.excess_bytes", extra={"host": self.origin.host, "port": self.origin.port})
        if reusable and owner is not None:
            if self.reading_paused:
                self.resume_reading()
            owner.release(self)
        else:
            self.abort()

    def fail(self, error: Exception) -> None:
        """Close at once, and say so to the exchange."""
        exchange = self.exchange
        self.abort()
        if exchange is not None:
            exchange.fail(error)

    def abort(self) -> None:
        """Close at once: nothing is sent any more, and what arrives is dropped."""
        if self.closed:
            return
        self.closed = True
        if self.exchange is not None:
            self.exchange.reader.stop()
            self.exchange = None
        self.silence.cancel()
        self._stalled.cancel()
        self._wake_writer()
        if self._made:
            self.transport.abort()
        if self.owner is not None:
            self.owner.discard(self)


def said_goodbye(tls: ssl.SSLObject) -> bool:
    """Whether the peer has ended TLS: if not, anybody on the way may have cut its response short (RFC 9112 §9.8)."""
    try:
        return not tls.read(1)
    except ssl.SSLError:
        return False
