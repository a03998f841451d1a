"""One line a request, written off the request path."""

import asyncio
import json
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol, Self, TextIO

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .check import directly
from .errors import NOBODY_LISTENS

_CALLER_ID = re.compile(rb"[A-Za-z0-9_.-]{1,128}\Z")
_UNSAFE = re.compile(r"[^\x21-\x7e]")
_FLUSH_SECONDS = 0.05
_MOST_LINES = 100_000
_MOST_CHARACTERS = 4096  # All of them ASCII. What goes into a pipe at once: lines of several workers stay whole there.
_quoted = json.JSONEncoder().encode
_quoted_once = lru_cache(maxsize=64)(_quoted)  # few: a path can be long

LogFormat = Literal["text", "json"]


class AccessLine(NamedTuple):
    """What is told of one request. No query string, header, body or token (they carry secrets and prompts)."""

    request_id: str
    caller_request_id: str | None
    client: str | None
    method: str
    path: str = ""
    user: str | None = None
    status: int = NOBODY_LISTENS
    bytes_sent: int = 0
    first_byte: float | None = None
    duration: float = 0.0
    finished: float = 0.0
    complete: bool = False
    code: str | None = None
    reason: str | None = None

    def as_json(self) -> str:
        """One JSON object; durations in seconds."""
        # Formatted in one go: an f-string makes as many strings as it has fields first.
        return (
            '{"time": "%s", "event": "request", "request_id": %s%s%s%s, "method": %s, "path": %s, "status": %d, '  # noqa: UP031
            '"bytes": %d, "duration": %.6f%s, "complete": %s%s%s}'
        ) % (
            _timestamp(self.finished),
            _quoted(self.request_id),
            "" if self.caller_request_id is None else _member("caller_request_id", self.caller_request_id),
            "" if self.client is None else _member("client", self.client),
            "" if self.user is None else _member("user", self.user),
            _quoted_once(self.method),
            _quoted_once(self.path),
            self.status,
            self.bytes_sent,
            self.duration,
            "" if self.first_byte is None else f', "time_to_first_byte": {self.first_byte:.6f}',
            "true" if self.complete else "false",
            "" if self.code is None else _member("code", self.code),
            "" if self.reason is None else _member("reason", self.reason),
        )

    def as_text(self) -> str:
        """The same for eyes: what a terminal could take for an order is escaped."""
        # Formatted in one go: an f-string makes as many strings as it has fields first.
        line = "%s %d %s %s user=%s bytes=%d first=%s total=%.1fms id=%s" % (  # noqa: UP031
            _timestamp(self.finished),
            self.status,
            _visible(self.method),
            _visible(self.path),
            _visible(self.user or "-"),
            self.bytes_sent,
            "-" if self.first_byte is None else "%.1fms" % (self.first_byte * 1000),
            self.duration * 1000,
            self.request_id,
        )
        if self.caller_request_id is not None:
            line += f" caller_id={self.caller_request_id}"
        if self.code is not None:
            line += f" code={self.code}"
        if self.reason is not None:
            line += f" reason={self.reason}"
        return line if self.complete else line + " incomplete"


class AccessLog:
    """Takes lines at the price of an append and writes them, many at once, from a thread.

    At most 100,000 lines wait; beyond that the newest are dropped, as are those that cannot be written, and their
    number is written as soon as that works. Up to 50 ms of lines are lost with a killed process. An async context
    manager; leaving it writes what is left.
    """

    def __init__(self, stream: TextIO, *, log_format: LogFormat = "text") -> None:
        self.stream = stream
        self.log_format = log_format
        self.render: Callable[[AccessLine], str] = AccessLine.as_json if log_format == "json" else AccessLine.as_text
        self._lines: deque[AccessLine] = deque()
        self._dropped = 0
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None

    def add(self, line: AccessLine) -> None:
        """Keep `line` for the next write. Must be called on the event loop."""
        if len(self._lines) >= _MOST_LINES:
            self._dropped += 1
            return
        self._lines.append(line)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        if self._writing is not None and not self._writing.done():
            self._timer = loop.call_later(_FLUSH_SECONDS, self._flush)
            return
        self._writing = loop.run_in_executor(None, self._write)

    def _write(self) -> None:
        lines = [self.render(self._lines.popleft()) for _ in range(len(self._lines))]
        lost, self._dropped = self._dropped, 0
        told = [self._render_lost(lost)] if lost else []
        try:
            for block in _blocks(lines + told):
                self.stream.write(block)
                self.stream.flush()
        except OSError:  # A full disk, or a reader that left, is no reason to answer nobody.
            self._dropped += len(lines) + lost

    def _render_lost(self, count: int) -> str:
        moment = _timestamp(time.time())
        if self.log_format == "text":
            return f"{moment} access_log.dropped lines={count}"
        return json.dumps({"time": moment, "event": "access_log.dropped", "lines": count})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None:
            await self._writing
        self._write()


class Tally(Protocol):
    """Counts requests. Both methods take a few microseconds at most, and raise nothing."""

    def started(self) -> None: ...

    def ended(self, status: int, duration: float, *, code: str | None = None) -> None: ...


def new_request_id() -> str:
    """32 hexadecimal digits that nobody has had or can guess: 48 bits of milliseconds, 80 of chance.

    They grow with time, so that records that are kept by them stay together: an index is written at its end.
    """
    return ((time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10)).hex()


class AccessLogMiddleware:
    """Give the request its id, tell it in the answer's `X-Request-Id`, and write its line when it is over.

    The one layer that wraps `send`, since each wrapper costs every chunk. The others leave in `answer_fields` what they
    have to say in the answer's header and learn from `answer_started` whether it is too late, both on `scope["state"]`.
    The id that counts (`request_id` on `scope["state"]`) is always the gateway's own; a well-formed `X-Request-Id` of
    the caller is echoed and logged instead, never used as a key. `log` None: no lines. `tally` hears of every request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        log: AccessLog | None,
        tally: Tally | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.app = directly(app)
        self.log = log
        self.tally = tally
        self.clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = new_request_id()
        caller_id = _caller_id(scope["headers"])
        state["public_request_id"] = public_id = (caller_id or request_id).encode()
        state["answer_started"] = False
        state["answer_fields"] = [(b"x-request-id", public_id)]
        if self.tally is not None:
            self.tally.started()
        passing = _Passing(state, send, self.clock)
        try:
            await self.app(scope, receive, passing.send)
        finally:
            duration = self.clock() - passing.start
            if self.tally is not None:
                self.tally.ended(passing.status, duration, code=state.get("code"))
            if self.log is not None:
                self.log.add(_line(scope, caller_id, passing, duration))


class _Passing:
    """An answer on its way to the client, as far as its line tells of it."""

    __slots__ = ("_clock", "_send", "_state", "bytes_sent", "complete", "first_byte", "start", "status")

    def __init__(self, state: MutableMapping[str, Any], send: Send, clock: Callable[[], float]) -> None:
        self._state = state
        self._send = send
        self._clock = clock
        self.start = clock()
        self.status = NOBODY_LISTENS
        self.first_byte: float | None = None
        self.bytes_sent = 0
        self.complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.first_byte = self._clock() - self.start
            state = self._state
            state["answer_started"] = True
            message["headers"] = [*message.get("headers", ()), *state["answer_fields"]]
            await self._send(message)
            return
        await self._send(message)
        self.bytes_sent += len(message.get("body", b""))
        self.complete = not message.get("more_body", False)


def _line(scope: Scope, caller_id: str | None, passing: _Passing, duration: float) -> AccessLine:
    state, client = scope["state"], scope.get("client")
    identity, method = state.get("identity"), scope["method"]
    # What a server took directly it has counted itself: a wrapper of that would cost every chunk.
    written: Callable[[], int] = scope.get("extensions", {}).get("attach.written", int)
    told = (
        state["request_id"],
        caller_id,
        client[0] if client else None,
        method,
        scope["path"],
        None if identity is None else identity.user,
        passing.status,
        0 if method == "HEAD" else passing.bytes_sent + written(),  # Servers leave the body out.
        passing.first_byte,
        duration,
        time.time(),
        passing.complete,
        state.get("code"),
        state.get("reason"),
    )
    return tuple.__new__(AccessLine, told)  # Calling a NamedTuple goes through Python three times.


def _caller_id(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    for name, value in headers:
        if name == b"x-request-id":
            return value.decode() if _CALLER_ID.match(value) else None
    return None


def _blocks(lines: Iterable[str]) -> Iterator[str]:
    """Whole lines, together as long as may be: each write has the thread wait for its turn again."""
    block: list[str] = []
    size = 0
    for line in lines:
        size += len(line) + 1
        if size > _MOST_CHARACTERS and block:
            yield "\n".join(block) + "\n"
            block, size = [], len(line) + 1
        block.append(line)
    if block:
        yield "\n".join(block) + "\n"


@lru_cache(maxsize=256)
def _member(name: str, value: str) -> str:
    return f', "{name}": {_quoted(value)}'


def _timestamp(seconds: float) -> str:
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return f"{_to_the_second(whole)}.{milliseconds:03}Z"


@lru_cache(maxsize=8)
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


@lru_cache(maxsize=64)
def _visible(text: str) -> str:
    if text.isascii() and text.isprintable() and " " not in text:
        return text
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode() if match[0] != " " else "%20", text)
