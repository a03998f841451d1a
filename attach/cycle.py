"""One request and its answer on a connection of uvicorn's, without what a gateway does not need."""

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, cast

from uvicorn._types import ASGI3Application, ASGIReceiveEvent, ASGISendEvent, HTTPScope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

BODY_FOLLOWS = "attach.body_follows"

_WITHOUT_CONTENT = (204, 304)


def _nothing() -> None: ...


class _News:
    """An `asyncio.Event` that is only made for who has to wait: nearly always all is there before it is asked for."""

    _told = False
    _event: asyncio.Event | None = None

    def is_set(self) -> bool:
        return self._told

    def set(self) -> None:
        self._told = True
        if self._event is not None:
            self._event.set()

    def clear(self) -> None:
        self._told = False
        if self._event is not None:
            self._event.clear()

    async def wait(self) -> Literal[True]:
        if not self._told:
            if self._event is None:
                self._event = asyncio.Event()
            await self._event.wait()
        return True


class GatewayCycle(RequestResponseCycle):
    """Writes an answer as uvicorn's own does, at a third of its cost.

    The header is checked as a whole instead of field by field: every field that gets here came out of a parser or is
    ours, so that what is left to stop is one that holds a line end (RFC 9110 §5.5).
    """

    def __init__(  # noqa: PLR0917 - by name they would cost a request as much as all that is done with them
        self,
        scope: HTTPScope,
        transport: asyncio.Transport,
        flow: FlowControl,
        logger: logging.Logger,
        default_headers: list[tuple[bytes, bytes]],
        expect_100_continue: bool,
        keep_alive: bool,
        on_response: Callable[[], None],
    ) -> None:
        # What uvicorn's own sets, by hand: calling it costs more than all of this.
        self.scope = scope
        self.transport = transport
        self.flow = flow
        self.logger = logger
        self.default_headers = default_headers
        self.message_event = _News()  # type: ignore[assignment]
        self.on_response = on_response
        self.disconnected = False
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = expect_100_continue
        self.body = bytearray()
        self.more_body = True
        self.response_started = self.response_complete = False
        self.chunked_encoding = None
        self.expected_content_length = 0
        self._without_content = scope["method"] == "HEAD"
        self._until_close = False
        self._head = b""  # goes out with the body
        self._written = 0

    async def run_asgi(self, app: ASGI3Application, tasks: set[asyncio.Task[None]] | None = None) -> None:
        """Have `app` answer; where it does not, 500 goes out, or what it began is cut off.

        The task that this runs in leaves `tasks` at the end: for a callback that did it the loop would go round again.

        What was lent to the app leads back to here: taken back, the memory of this request is free the moment it ends,
        and nobody has to search for it.
        """
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException as exc:
            self.logger.error("Exception in ASGI application", exc_info=exc)
            await self._give_up()
        else:
            if not self.response_complete and not self.disconnected:
                what = "completing" if self.response_started else "starting"
                self.logger.error("ASGI callable returned without %s response.", what)
                await self._give_up()
        finally:
            self.on_response = _nothing
            self.scope.get("extensions", {}).clear()
            if tasks is not None:
                tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _give_up(self) -> None:
        if self.response_started:
            self.transport.close()
        else:
            await self.send_500_response()

    async def receive(self) -> ASGIReceiveEvent:
        """As uvicorn's own, without a wait for what is there: nearly always the whole request is."""
        if self.waiting_for_100_continue or not self.message_event.is_set():
            return await super().receive()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        self.flow.resume_reading()
        self.message_event.clear()
        body, self.body = self.body, bytearray()
        return {"type": "http.request", "body": bytes(body), "more_body": self.more_body}

    async def send(self, message: ASGISendEvent) -> None:
        """Raises `RuntimeError` for a message out of turn, and for an answer that is not as long as it says.

        A start may say `attach.body_follows`: the next message comes at once, and both leave in one write.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start" and not self.response_started:
            body_follows = cast("Mapping[str, Any]", message).get(BODY_FOLLOWS, False)
            self._send_head(message["status"], message.get("headers", ()), body_follows=body_follows)
        elif message["type"] == "http.response.body" and self.response_started and not self.response_complete:
            self._send_body(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"{message['type']} is out of turn")

    def write(self, body: bytes, chunk: bytes = b"") -> bool:
        """Send a piece of an answer that goes on, without waiting; False: the next one waits in `send`.

        `chunk`: `body` in the framing of a chunk, where somebody has made it already.

        This is the ASGI extension `attach.write`. A layer that wraps `send` to see or change bodies has to wrap this
        too, or to take it out of the scope; one that counts them asks `written`.
        """
        if self.disconnected or not self.response_started or self.response_complete:
            return False
        self._written += len(body)
        if self.chunked_encoding and body and not self._head:
            self.transport.write(chunk or b"%x\r\n%b\r\n" % (len(body), body))
        else:
            self._send_body(body, more=True)
        return not self.flow.write_paused

    def written(self) -> int:
        """How many bytes of the body went by `write`: the ASGI extension `attach.written`."""
        return self._written

    def _send_head(self, status: int, headers: Iterable[tuple[bytes, bytes]], *, body_follows: bool) -> None:
        self._without_content |= status in _WITHOUT_CONTENT
        fields = [*self.default_headers, *headers]
        closing = self._read_fields(dict(fields))
        if not self.keep_alive and not closing:
            fields.append((b"connection", b"close"))
        if self.chunked_encoding is None and not self._without_content:
            if self.scope["http_version"] == "1.0":
                self._end_by_closing()
            else:
                self.chunked_encoding = True
                fields.append((b"transfer-encoding", b"chunked"))
        lines = b"\r\n".join(map(b": ".join, fields))
        if len(lines) - len(lines.translate(None, b"\r\n\0")) != 2 * max(len(fields) - 1, 0):
            raise RuntimeError("A header field holds a line end or a NUL")
        head = STATUS_LINE[status] + lines + (b"\r\n\r\n" if fields else b"\r\n")
        self.response_started = True
        self.waiting_for_100_continue = False
        if body_follows:
            self._head = head
        else:
            self.transport.write(head)

    def _read_fields(self, fields: Mapping[bytes, bytes]) -> bool:
        """Learn how long the answer is going to be; returns whether it says that the connection closes behind it."""
        length = fields.get(b"content-length")
        if length is not None:
            self.expected_content_length = 0 if self._without_content else int(length)
            self.chunked_encoding = False
        connection = fields.get(b"connection")
        closing = connection is not None and b"close" in connection.lower()
        self.keep_alive = self.keep_alive and not closing
        return closing

    def _send_body(self, body: bytes, *, more: bool) -> None:
        data = b"" if self._without_content else self._framed(body, last=not more)
        if self._head:
            data = self._head + data
            self._head = b""
        if data:
            self.transport.write(data)
        if not more:
            self._complete()

    def _framed(self, body: bytes, *, last: bool) -> bytes:
        if self.chunked_encoding:
            end = b"0\r\n\r\n" if last else b""
            return b"%x\r\n%b\r\n%b" % (len(body), body, end) if body else end
        if not self._until_close:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("The answer is longer than its Content-Length")
        return body

    def _end_by_closing(self) -> None:
        """What HTTP/1.0 has for an answer of unknown length (RFC 9112 §6.3): its end is the connection's.

        Until it is complete the connection is set to be reset when it closes, so that a broken answer looks broken.
        """
        self._until_close = True
        self._reset_at_close(True)

    def _reset_at_close(self, reset: bool) -> None:
        connection = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", reset, 0))

    def _complete(self) -> None:
        if self._until_close:
            self._reset_at_close(False)
        if self.expected_content_length:
            raise RuntimeError("The answer is shorter than its Content-Length")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive and not self.more_body:
            self.transport.close()
        self.on_response()
