"""One request and its answer on a connection of uvicorn's, without what a gateway does not need."""

import socket
import struct
from collections.abc import Iterable, Mapping
from typing import Any, cast

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

BODY_FOLLOWS = "attach.body_follows"

_WITHOUT_CONTENT = (204, 304)


class GatewayCycle(RequestResponseCycle):
    """Writes an answer as uvicorn's own does, at a third of its cost.

    The header is checked as a whole instead of field by field: every field that gets here came out of a parser or is
    ours, so that what is left to stop is one that holds a line end (RFC 9110 §5.5).
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._without_content = self.scope["method"] == "HEAD"
        self._until_close = False
        self._head = b""  # goes out with the body

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

    def write(self, body: bytes) -> bool:
        """Send a piece of an answer that goes on, without waiting; False: the next one waits in `send`.

        This is the ASGI extension `attach.write`. A layer that wraps `send` to see or change bodies has to wrap this
        too, or to take it out of the scope.
        """
        if self.disconnected or not self.response_started or self.response_complete:
            return False
        self._send_body(body, more=True)
        return not self.flow.write_paused

    def _send_head(self, status: int, headers: Iterable[tuple[bytes, bytes]], *, body_follows: bool) -> None:
        self._without_content |= status in _WITHOUT_CONTENT
        fields = [b"%b: %b\r\n" % field for field in (*self.default_headers, *headers)]
        closing = self._read_fields(headers)
        if not self.keep_alive and not closing:
            fields.append(b"connection: close\r\n")
        if self.chunked_encoding is None and not self._without_content:
            if self.scope["http_version"] == "1.0":
                self._end_by_closing()
            else:
                self.chunked_encoding = True
                fields.append(b"transfer-encoding: chunked\r\n")
        head = b"".join([STATUS_LINE[status], *fields, b"\r\n"])
        lines = len(fields) + 2
        if head.count(b"\n") != lines or head.count(b"\r") != lines or b"\0" in head:
            raise RuntimeError("A header field holds a line end or a NUL")
        self.response_started = True
        self.waiting_for_100_continue = False
        if body_follows:
            self._head = head
        else:
            self.transport.write(head)

    def _read_fields(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Note how long the answer is going to be; returns whether it says that the connection closes behind it."""
        closing = any(name == b"connection" for name, _ in self.default_headers)
        for name, value in headers:
            name = name.lower()  # noqa: PLW2901 - the same name, as it is compared
            if name == b"content-length":
                self.expected_content_length = 0 if self._without_content else int(value)
                self.chunked_encoding = False
            elif name == b"connection" and b"close" in value.lower():
                closing = True
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
