"""One request and its response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass

import httpx

from .connection import Connection
from .framing import Field
from .request_head import Body
from .response_reader import ResponseReader

# Takes a piece, and the chunk that it came in (RFC 9112 §7.1) where that is `b"%x\r\n%b\r\n"` of it, else b"".
Sink = Callable[[bytes, bytes], bool]

MAX_UNBROKEN_BYTES = 262_144  # As many as a loop reads in one go.


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long, in seconds, each kind of standstill may last; None: for ever.

    Attributes:
        connect: Until a new connection stands, TLS included.
        read: Silence while waiting for the next bytes of a response. Each piece starts it anew.
        write: The server takes nothing of a request.
        pool: Until a connection is free, where `max_connections` are open.
    """

    connect: float | None = 5.0
    read: float | None = 300.0
    write: float | None = 60.0
    pool: float | None = 5.0


class Exchange(httpx.AsyncByteStream):
    """A response that is arriving. Read it to its end or close it, else its connection stays taken.

    What goes wrong after the head is raised by `read`, once everything that came before it has been read:
    httpx.ReadError, ReadTimeout, WriteError, WriteTimeout, RemoteProtocolError; LocalProtocolError if the streamed
    request does not keep to its declared length; and whatever the request's own stream raises.
    """

    __slots__ = ("_connection", "_failure", "closes", "reader", "sink", "timeouts", "upload", "uploading", "waiter")

    def __init__(self, connection: Connection, reader: ResponseReader, timeouts: Timeouts, closes: bool) -> None:
        self.reader = reader
        self.timeouts = timeouts
        self.uploading = False
        self.closes = closes
        self.sink: Sink | None = None
        self._connection = connection
        self.waiter: asyncio.Future[None] | None = None
        self.upload: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    # The response.

    @property
    def status(self) -> int:
        """The final status code: interim responses are not shown."""
        return self.reader.head.status

    @property
    def reason(self) -> bytes:
        return self.reader.head.reason

    @property
    def http_version(self) -> bytes:
        """b"HTTP/1.1" or b"HTTP/1.0"."""
        return self.reader.head.version

    @property
    def headers(self) -> tuple[Field, ...]:
        """The fields of the head, names as the server wrote them."""
        return self.reader.head.fields

    @property
    def trailers(self) -> list[Field]:
        """The fields after the body: empty until the body has ended."""
        return self.reader.trailers

    @property
    def complete(self) -> bool:
        """All of the response has arrived: `read` gives the rest in one piece and never waits."""
        return self.reader.complete

    @property
    def ready(self) -> bool:
        """`read` has something to give, be it the end."""
        return bool(self.reader.pieces) or self.reader.complete

    @property
    def ended(self) -> bool:
        """`read` has given all of it."""
        return self.reader.complete and not self.reader.pieces

    @property
    def over(self) -> bool:
        """Nothing is left to close."""
        over = self.reader.complete and self._connection.exchange is not self
        return over and (self.upload is None or self.upload.done())

    async def read(self) -> bytes:
        """The next bytes of the body, all that have arrived; b"" once it has ended."""
        reader = self.reader
        while not reader.pieces:
            if reader.complete:
                if self.upload is not None:
                    await self._end_upload()
                return b""
            await self._wait()
        return self.take()

    def take(self) -> bytes:
        """What `read` would give without waiting; b"" where it would wait, and at the end."""
        reader = self.reader
        if not reader.pieces:
            return b""
        connection = self._connection
        body = reader.take()
        if connection.reading_paused and connection.exchange is self:
            connection.resume_reading()
        return body

    async def pour(self, sink: Sink) -> None:
        """Give what arrives to `sink` at once, within the loop's own callback, so that no task is woken for it.

        `sink` takes each piece as `read` would give it, and returns False where the next one has to wait; it never
        waits itself. Returns then, or when there is something for `read` to give or to raise: the end among it, with
        what arrived together with it.

        Raises:
            Exception: What `sink` raised; the connection is closed.
        """
        if self.ready:
            return
        self.sink = sink
        try:
            await self._wait()
        finally:
            self.sink = None

    def hand_on(self, sink: Sink, piece: bytes, chunk: bytes) -> None:
        """Give `sink` what has arrived; called by the connection, for a response that has not ended."""
        try:
            if sink(piece, chunk):
                return
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the task that gave the sink
            self._connection.fail(error)
        self.sink = None
        self.wake()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while body := await self.read():
            yield body

    async def aclose(self) -> None:
        """Give up what has not arrived, and the connection with it. Closing again does nothing."""
        self.abort()
        await self._end_upload()

    def abort(self) -> None:
        """Close the connection at once, unless the response is complete; `read` raises from then on."""
        if not self.reader.complete:
            self.fail(httpx.ReadError("The response was closed before it was complete"))
        if self._connection.exchange is self:
            self._connection.abort()

    # The request.

    def begin(self, head: bytes, body: Body, length: int | None) -> None:
        """Send a request whose head announces `length` bytes of body (None: chunks).

        Bytes go out as they are; a stream is sent by a task of its own, so that an answer is heard while it runs.
        """
        connection = self._connection
        connection.exchange = self
        if body is None or isinstance(body, bytes):
            connection.write(head, body or b"" if length is not None else chunked(body or b""))
        else:
            connection.write(head, b"")
            self._begin_upload(body, length)

    async def settle_upload(self) -> None:
        """With the response's head: the upload stops at once on a refusal (3xx to 5xx), else when it has ended."""
        connection = self._connection
        if connection.sending and self.reader.head.status >= 300:
            self.cut_upload()
            connection.stop_sending()
        if self.upload is not None and not self.uploading:
            await self._end_upload()

    def _begin_upload(self, body: AsyncIterable[bytes], length: int | None) -> None:
        self.uploading = self._connection.sending = True
        self.upload = self._connection.loop.create_task(self._send_stream(body, length))
        self.upload.add_done_callback(self._uploaded)

    async def _send_stream(self, body: AsyncIterable[bytes], length: int | None) -> None:
        iterator = aiter(body)
        try:
            await self._send_pieces(iterator, length)
        finally:
            if isinstance(iterator, AsyncGenerator):
                await iterator.aclose()

    async def _send_pieces(self, body: AsyncIterator[bytes], length: int | None) -> None:
        connection = self._connection
        left = length
        unbroken = 0
        async for piece in body:
            if not piece:
                continue  # An empty chunk would end the body.
            unbroken += len(piece)
            if unbroken > MAX_UNBROKEN_BYTES:
                unbroken = 0
                await asyncio.sleep(0)  # Neither a quick stream nor a quick server may keep the loop from others.
            if left is None:
                alive = await connection.write_pieces(b"%x\r\n" % len(piece), piece, b"\r\n")
            elif len(piece) <= left:
                left -= len(piece)
                alive = await connection.write_pieces(piece)
            else:
                raise httpx.LocalProtocolError("The request's stream is longer than its Content-Length")
            if not alive:
                return
        if left:
            raise httpx.LocalProtocolError("The request's stream is shorter than its Content-Length")
        if left is None:
            await connection.write_pieces(b"0\r\n\r\n")
        self.uploading = False
        connection.check_sent()

    def _uploaded(self, task: asyncio.Task[None]) -> None:
        # Asked for in any case: asyncio reports an exception that nobody has seen.
        error = httpx.WriteError("The request's stream was cancelled") if task.cancelled() else task.exception()
        if self.uploading and isinstance(error, Exception):
            self._connection.fail(error)

    def cut_upload(self) -> None:
        """Read no more of the request's stream, if it has not ended."""
        if self.upload is not None and self.uploading:
            self.uploading = False
            self.upload.cancel()

    async def _end_upload(self) -> None:
        """Return once the request's stream is no longer iterated."""
        self.cut_upload()
        if self.upload is not None and not self.upload.done():
            await asyncio.wait([self.upload])

    # Waiting.

    @property
    def unanswered(self) -> bool:
        """Not a byte of a response has arrived."""
        return not self.reader.started

    def wake(self) -> None:
        """Let whoever waits look again."""
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def fail(self, error: Exception) -> None:
        """The connection is closed; `read` raises `error` after what has arrived."""
        if self._failure is None:
            self._failure = error
        self.cut_upload()
        self.wake()

    def news(self) -> asyncio.Future[None]:
        """What `wake` ends, to be waited for. Who gives up waiting aborts."""
        if self._failure is not None:
            raise self._failure
        connection = self._connection
        self.waiter = waiter = connection.loop.create_future()
        connection.silence.set(self.timeouts.read)
        return waiter

    async def _wait(self) -> None:
        waiter = self.news()
        try:
            await waiter
        except BaseException:
            self.abort()
            raise


def chunked(body: bytes) -> bytes:
    """A whole body in chunks (RFC 9112 §7.1)."""
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
