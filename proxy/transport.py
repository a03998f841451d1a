"""HTTP/1.1 to the engines: what httpcore does for httpx, at a fraction of its cost.

The life of a connection. A request takes the idle connection to its origin that was used last, after asking the kernel
whether anything has happened to it; else it opens one, within `max_connections`, or waits in line for a place. The head
leaves in one write, with a body that is bytes; a streamed body is sent by a task that waits while the socket is full.
What arrives is read strictly by `ResponseReader` and kept until the consumer takes it; above 64 KiB the socket is no
longer read. Once the response has ended the connection goes back to the pool, even if its body is yet to be taken, and
is closed after `keepalive_expiry` seconds. It is closed at once, and its place given on, whenever anything else
happens: `Connection: close`, an error, a timeout, a cancelled caller, a response closed before its end, an upload cut
short by an early answer, bytes behind the end of a response.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from collections.abc import Sequence

import certifi
import httpx

from .connection import Connection, Origin
from .exchange import Exchange, Timeouts
from .framing import Field, FieldNames
from .pool import Pool, PoolCounts, PoolLimits
from .request_head import Body, write_head
from .response_head import HeadLimits, HeadParser
from .response_reader import ResponseReader

IDEMPOTENT = frozenset({b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PUT", b"TRACE"})  # RFC 9110 §9.2.2


class EngineTransport(httpx.AsyncBaseTransport):
    """Sends requests over pooled HTTP/1.1 connections; belongs to the loop it is first used on.

    Nothing is decompressed, redirected, or taken from the environment (no HTTP_PROXY). A request whose idle connection
    turns out to be dead is sent again on a new one, if not a byte of a response has arrived and sending it twice does
    no harm: its method is idempotent and its body, if any, is bytes. A request not sent yet always moves on.
    """

    def __init__(
        self,
        *,
        timeouts: Timeouts | None = None,
        limits: PoolLimits | None = None,
        verify: ssl.SSLContext | str | bool = True,
        max_head_bytes: int = 65_536,
        max_fields: int = 100,
    ) -> None:
        """Open nothing yet.

        Args:
            verify: For https: a context, the path of a file with the CA certificates to trust, True for certifi's, or
                False for no verification at all.
            max_head_bytes: Of a response's head, interim responses before it included; and of its trailers.
            max_fields: In a response's head, and in its trailers.

        Raises:
            OSError: The CA file cannot be read or holds no certificates.
        """
        self.timeouts = timeouts or Timeouts()
        self.names = FieldNames()
        self._head_parser = HeadParser(HeadLimits(max_head_bytes, max_fields), self.names)
        self._verify: ssl.SSLContext | bool = client_context(verify) if isinstance(verify, str) else verify
        self._pool = Pool(limits or PoolLimits(), self._open)

    @property
    def counts(self) -> PoolCounts:
        """How many connections there are right now."""
        return self._pool.counts

    async def exchange(
        self,
        origin: Origin,
        method: bytes,
        target: bytes,
        fields: Sequence[Field],
        body: Body = None,
        *,
        timeouts: Timeouts | None = None,
    ) -> Exchange:
        """Send a request and return once the head of its response is here. The caller reads the response or closes it.

        Args:
            target: The raw request target, sent byte for byte.
            fields: Sent as they are; `Host` among them. Framing is added where they give none.
            body: Bytes, a stream, or None. A stream is no longer iterated when this raises.

        Raises:
            httpx.TransportError: LocalProtocolError for a request that cannot be sent safely, RemoteProtocolError for a
                response that cannot be read safely, and ConnectError, ReadError, WriteError, ConnectTimeout,
                ReadTimeout, WriteTimeout, PoolTimeout.
        """
        head, length, closes = write_head(method, target, fields, body, self.names)
        return await self.send(origin, method, head, length, body, timeouts=timeouts or self.timeouts, closes=closes)

    async def send(
        self,
        origin: Origin,
        method: bytes,
        head: bytes,
        length: int | None,
        body: Body,
        *,
        timeouts: Timeouts,
        closes: bool = False,
    ) -> Exchange:
        """`exchange` for a head that is written: it announces `length` (None: chunks), and may close the connection."""
        connection = self._pool.take_idle(origin)
        while True:
            if connection is None:
                connection = await self._pool.take(origin, wait=timeouts.pool, connect=timeouts.connect)
            reader = ResponseReader(method == b"HEAD", self._head_parser)
            exchange = Exchange(connection, reader, timeouts, closes)
            repeatable = connection.reused and method in IDEMPOTENT and (body is None or isinstance(body, bytes))
            try:
                exchange.begin(head, body, length)
                while not reader.head.status:
                    await exchange.news()
                if connection.sending or exchange.upload is not None:
                    await exchange.settle_upload()
            except BaseException as error:
                await exchange.aclose()
                lost = isinstance(error, httpx.ReadError | httpx.WriteError | httpx.RemoteProtocolError)
                if not (lost and repeatable and exchange.unanswered):
                    raise
                connection = None
            else:
                return exchange

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """`exchange` in httpx's types.

        Request extensions: `timeout` (a dict of connect, read, write, pool), `target` (bytes sent instead of the URL's
        path and query). Response extensions: `http_version`, `reason_phrase`, and `trailers`, a list of (name, value)
        in bytes that is empty until the body has ended.
        """
        extensions = request.extensions
        url = request.url
        exchange = await self.exchange(
            Origin.of(url),
            request.method.encode("ascii"),
            extensions.get("target") or url.raw_path,
            request.headers.raw,
            body_of(request),
            timeouts=self._timeouts_of(extensions.get("timeout")),
        )
        return httpx.Response(
            exchange.status,
            headers=exchange.headers,
            stream=exchange,
            extensions={
                "http_version": exchange.http_version,
                "reason_phrase": exchange.reason,
                "trailers": exchange.trailers,
            },
        )

    def _timeouts_of(self, given: dict[str, float | None] | None) -> Timeouts:
        """What a request's extension asks for; its own for what that leaves out."""
        return dataclasses.replace(self.timeouts, **given) if given else self.timeouts

    async def aclose(self) -> None:
        """Close every connection at once; exchanges that are running fail."""
        await self._pool.aclose()

    async def _open(self, origin: Origin) -> Connection:
        loop = asyncio.get_running_loop()
        connection = Connection(loop, origin)
        tls = self._context() if origin.scheme == "https" else None
        try:
            await loop.create_connection(
                lambda: connection, origin.host, origin.port, ssl=tls, server_hostname=origin.host if tls else None
            )
        except TimeoutError as error:
            raise httpx.ConnectTimeout("The server did not accept a connection in time") from error
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"The server was not reached: {error}") from error
        except BaseException:
            connection.abort()  # It may just have been made.
            raise
        return connection

    def _context(self) -> ssl.SSLContext:
        if isinstance(self._verify, bool):
            self._verify = client_context(self._verify)  # Not before https is spoken: reading certifi takes a while.
        return self._verify


def body_of(request: httpx.Request) -> Body:
    """The body of a request, as bytes where httpx holds it as such."""
    stream = request.stream
    if isinstance(stream, httpx.ByteStream):
        return b"".join(stream)
    if isinstance(stream, httpx.AsyncByteStream):
        return stream
    raise httpx.LocalProtocolError("The request's stream cannot be read asynchronously")


def client_context(verify: str | bool) -> ssl.SSLContext:
    """A TLS client that trusts the CA certificates in the file `verify`, True: certifi's, False: anybody."""
    context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else certifi.where())
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context
