"""An agent's answer on its way to the caller: sent on as it comes, and read beside that."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.types import Message, Send

from .sightings import Sighting, StreamReader, sighting

MAX_HELD_BYTES = 8 * 1024 * 1024

Seen = Callable[[Sighting], Awaitable[None]]
Rewrite = Callable[[bytes], Awaitable[bytes]]


class AnswerTooLarge(Exception):
    """The answer must be read whole before it may go out, and is too large for that."""


class Relay:
    """Sends an answer on, byte for byte, and says what it names before the caller can have read it.

    The piece that completes a stream's event, or a JSON body, waits until `seen` is through with that: an id that a
    caller knows is his by then.

    Args:
        most_bytes: Of a JSON body that is read; what is longer passes unread.
        text: What the agent says is to be seen too.

    Attributes:
        status: The agent's; 0 until there is one.
        unread: The answer was too long to be read.
    """

    def __init__(self, send: Send, seen: Seen, *, most_bytes: int, text: bool = False) -> None:
        self._send = send
        self._seen = seen
        self._most_bytes = most_bytes
        self._text = text
        self._stream: StreamReader | None = None
        self._body: bytearray | None = None
        self.status = 0
        self.unread = False

    @property
    def events(self) -> int:
        """How many events have passed."""
        return 0 if self._stream is None else self._stream.events

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message = self._start(message)
        elif message["type"] == "http.response.body":
            await self._read(message.get("body", b""), last=not message.get("more_body", False))
        await self._send(message)

    def _start(self, message: Message) -> Message:
        self.status = message["status"]
        kind = media_type(message)
        if kind == "text/event-stream":
            self._stream = StreamReader(text=self._text)
            # Proxies between us and the caller would keep a stream until it is long (nginx reads this).
            headers = [field for field in message["headers"] if field[0] != b"x-accel-buffering"]
            return {**message, "headers": [*headers, (b"x-accel-buffering", b"no")]}
        if kind == "application/json" or kind.endswith("+json"):
            self._body = bytearray()
        return message

    async def _read(self, piece: bytes, *, last: bool) -> None:
        if self._stream is not None:
            for found in self._stream.feed(piece):
                await self._seen(found)
        elif self._body is not None:
            self._body += piece
            if len(self._body) > self._most_bytes:
                self._body, self.unread = None, True
            elif last:
                await self._seen(sighting(parsed(bytes(self._body))))


class Held:
    """Keeps an answer until it is whole, and sends what `rewrite` makes of it, if it is a good one.

    Raises `AnswerTooLarge`, while nothing has been sent.
    """

    def __init__(self, send: Send, rewrite: Rewrite, *, most_bytes: int = MAX_HELD_BYTES) -> None:
        self._send = send
        self._rewrite = rewrite
        self._most_bytes = most_bytes
        self._start: Message = {}
        self._body = bytearray()
        self.status = 0
        self.error: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            self.status = message["status"]
            return
        self._body += message.get("body", b"")
        if len(self._body) > self._most_bytes:
            raise AnswerTooLarge
        if not message.get("more_body", False):
            await self._finish()

    async def _finish(self) -> None:
        body = bytes(self._body)
        self.error = sighting(parsed(body)).error
        if 200 <= self.status < 300 and self.error is None:  # Whatever type it says: others' tasks may be in it.
            body = await self._rewrite(body)
        framing = (b"content-length", b"transfer-encoding")
        headers = [field for field in self._start["headers"] if field[0] not in framing]
        if body or self.status == 200:
            headers.append((b"content-length", b"%d" % len(body)))
        await self._send({**self._start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


def media_type(start: Message) -> str:
    """The answer's, in lower case and without parameters."""
    values = [value for name, value in start["headers"] if name == b"content-type"]
    return values[0].partition(b";")[0].strip().lower().decode("latin-1") if values else ""


def parsed(body: bytes) -> Any:
    """An answer's JSON; None where it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
