"""The way to the engine: any method, any path, both bodies streamed."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from starlette.types import Receive, Scope, Send

from auth import IdentitySigner, MissingCredentials
from wire import Refusal

from .caller import Caller
from .connection import Origin
from .errors import ExchangeEnded, GatewayStopping, Unsupported, upstream_error
from .exchange import Exchange, Timeouts
from .headers import AnswerHead, Fields, Network, RequestHeaders
from .observer import MOST_REFUSAL_BYTES, Observer
from .request_head import Body, framing_lines, request_line
from .response_head import ResponseHead
from .transport import EngineTransport

# The ASGI extension `attach.write`: a piece, and its chunk where that is made, is sent; False: wait before the next.
Write = Callable[[bytes, bytes], bool]

_STOPPING = Refusal(status=503, code="stopping", detail="The gateway is being stopped: send the request again.")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Where the engine is and how long to wait for it.

    Attributes:
        url: Scheme, host, port and an optional path prefix, no final slash.
        api_key: Sent as the engine's Bearer token; None sends none.
        ca_file: PEM file with the CA certificates to trust for https; None: the public ones.
        connect_timeout: Seconds to make a connection.
        read_timeout: Seconds of silence, not in total.
    """

    url: str = "http://localhost:11434"
    api_key: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    connect_timeout: float = 5.0
    read_timeout: float = 600.0


class EngineProxy:
    """Streams a request through to the engine and its answer back, byte for byte.

    Refuses a request without an `Identity`, however it got here. A caller that leaves cancels the engine's work at
    once. An answer that breaks off stays broken for the client too. An `Observer` that a layer before this one left as
    `observer` on `scope["state"]` sees it all. Raises `UpstreamError`, `ClientLeft`, `GatewayStopping`, `ExchangeEnded`
    and `Unsupported`.
    """

    def __init__(
        self,
        transport: EngineTransport,
        settings: EngineSettings,
        *,
        signer: IdentitySigner | None = None,
        trusted_proxies: tuple[Network, ...] = (),
    ) -> None:
        self.transport = transport
        self.url = httpx.URL(settings.url)
        self._prefix = self.url.raw_path.rstrip(b"/")
        self._origin = Origin.of(self.url)
        self._timeouts = Timeouts(
            connect=settings.connect_timeout,
            read=settings.read_timeout,
            write=settings.read_timeout,
            pool=settings.connect_timeout,
        )
        self._headers = RequestHeaders(
            host=self.url.netloc.decode("ascii"),
            credential=None if settings.api_key is None else f"Bearer {settings.api_key}",
            signer=signer,
            trusted_proxies=trusted_proxies,
        )
        self._running: set[Caller] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["state"]
        if state.get("identity") is None:
            raise MissingCredentials
        if scope["method"] == "TRACE":  # An engine that heeds it shows our credential for it (RFC 9110 §9.3.8).
            raise Unsupported("TRACE is not forwarded.")
        observer: Observer | None = state.get("observer")
        caller = Caller(scope, receive)
        framing = await caller.begin()
        answer = _Answer(scope, send, caller.answered, observer)
        if observer is not None:
            observer.begin(lambda refusal: caller.interrupt(ExchangeEnded(refusal)))
        self._running.add(caller)
        try:
            with caller:
                exchange = await self._begin(scope, framing, caller.content)
                try:
                    first = b""
                    if observer is not None and exchange.status == 400 and observer.changed_request:
                        exchange, first = await self._try_again(scope, exchange, observer)
                    await answer.relay(exchange, first)
                finally:
                    if not exchange.over:
                        await exchange.aclose()
        except httpx.TransportError as exc:
            raise upstream_error(exc) from exc
        except GatewayStopping:
            if not await answer.end_with(_STOPPING):
                raise
        except ExchangeEnded as ended:
            if not await answer.end_with(ended.refusal):
                raise
        finally:
            self._running.discard(caller)

    def stop(self) -> None:
        """End what still runs: a stream gets an error event of its dialect where it stands between two events."""
        for caller in tuple(self._running):
            caller.interrupt(GatewayStopping())

    async def probe(self, *, timeout: float = 2.0) -> bool:
        """Whether the engine answers at all; any status will do."""
        limits = Timeouts(connect=timeout, read=timeout, write=timeout, pool=timeout)
        target = self._prefix or b"/"
        try:
            exchange = await self.transport.exchange(self._origin, b"HEAD", target, self._headers.own, timeouts=limits)
            await exchange.aclose()
        except httpx.TransportError:
            return False
        return True

    def _begin(self, scope: Scope, framing: Fields, body: Body) -> Awaitable[Exchange]:
        method = scope["method"].encode("ascii")
        line = request_line(method, self._target(scope))
        end, length = framing_lines(body, framing, self.transport.names)
        head = self._headers.head(scope, line, end)
        return self.transport.send(self._origin, method, head, length, body, timeouts=self._timeouts)

    async def _try_again(self, scope: Scope, exchange: Exchange, observer: Observer) -> tuple[Exchange, bytes]:
        """Ask as the client did, if the rest is what was refused; else the refusal and its beginning."""
        refusal = b""
        while len(refusal) < MOST_REFUSAL_BYTES and (piece := await exchange.read()):
            refusal += piece
        body = observer.request_again(refusal)
        if body is None:
            return exchange, refusal
        await exchange.aclose()
        return await self._begin(scope, [], body), b""

    def _target(self, scope: Scope) -> bytes:
        """What the client asked for, to the byte: whoever re-encodes a path changes what it names."""
        target: bytes = self._prefix + scope["raw_path"]
        return target + b"?" + scope["query_string"] if scope["query_string"] else target


class _Answer:
    """The engine's answer on its way to the client, and how far it got."""

    __slots__ = ("_done", "_finished", "_media_type", "_observer", "_scope", "_send", "_started", "_tail")

    def __init__(self, scope: Scope, send: Send, done: Callable[[], None], observer: Observer | None) -> None:
        self._scope = scope
        self._send = send
        self._done = done
        self._observer = observer
        self._started = self._finished = False
        self._media_type = ""
        self._tail = b""

    async def relay(self, exchange: Exchange, first: bytes = b"") -> None:
        """Send the answer on as it comes. A piece that comes with the answer's end is the last message.

        Args:
            first: What was read of the body before.
        """
        status = exchange.status
        headers = self._head_of(exchange.reader.head)
        if self._observer is not None:
            headers = self._observer.answer(status, headers)
        self._started = True
        follows = bool(first) or exchange.ready
        start = {"type": "http.response.start", "status": status, "headers": headers, "attach.body_follows": follows}
        await self._send(start)
        while piece := first or exchange.take() or await exchange.read():
            first = b""
            if exchange.ended:
                await self._finish(piece)
                return
            if self._observer is not None:
                piece = await self._observed(self._observer, piece)
                if not piece:
                    continue
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            self._tail = piece if len(piece) >= 4 else self._tail[-4:] + piece
            write: Write | None = self._scope.get("extensions", {}).get("attach.write")
            if write is not None:
                await self._pour(exchange, write)
        await self._finish(b"")

    async def _pour(self, exchange: Exchange, write: Write) -> None:
        """Send pieces on as they arrive, until that takes waiting: for the client, the observer, or the end."""
        observer = self._observer

        def hand_on(piece: bytes, chunk: bytes) -> bool:
            self._tail = piece if len(piece) >= 4 else self._tail[-4:] + piece
            return write(piece, chunk)

        if observer is None:
            await exchange.pour(hand_on)
            return

        def hand_on_observed(piece: bytes, chunk: bytes) -> bool:
            passing = observer.piece(piece, False)
            if passing:
                self._tail = passing if len(passing) >= 4 else self._tail[-4:] + passing
                return write(passing, chunk if passing is piece else b"") and not observer.holds
            return not observer.holds

        await exchange.pour(hand_on_observed)
        if observer.holds:
            await self._send({"type": "http.response.body", "body": await observer.commit(), "more_body": True})

    async def _observed(self, observer: Observer, piece: bytes, *, last: bool = False) -> bytes:
        piece = observer.piece(piece, last)
        return piece + await observer.commit() if observer.holds else piece

    async def _finish(self, piece: bytes) -> None:
        self._finished = True
        self._done()
        if self._observer is not None:
            piece = await self._observed(self._observer, piece, last=True)
        await self._send({"type": "http.response.body", "body": piece, "more_body": False})

    async def end_with(self, refusal: Refusal) -> bool:
        """Close a running stream with an event that says why. False where nothing was sent, so that a status still can.

        Where that event would land inside another, or in compressed bytes, or the length is already told, the stream
        stays broken.
        """
        frame = refusal.frame(self._scope["path"], self._media_type)
        if not self._started:
            return False
        if self._observer is not None and self._observer.holds:
            frame = await self._observer.commit()  # The answer is complete; only its last piece is still kept.
        if frame is not None and not self._finished and self._between_events():
            await self._send({"type": "http.response.body", "body": frame, "more_body": False})
        return True

    def _head_of(self, head: ResponseHead) -> Fields:
        known = head.derived
        if not isinstance(known, AnswerHead):
            known = head.derived = AnswerHead.of(head.status, head.fields)
        self._media_type = "" if known.has_length and self._scope["method"] != "HEAD" else known.media_type
        return known.fields.copy()

    def _between_events(self) -> bool:
        ends = (b"\n",) if "ndjson" in self._media_type else (b"\n\n", b"\r\n\r\n", b"\r\r")
        return not self._tail or self._tail.endswith(ends)
