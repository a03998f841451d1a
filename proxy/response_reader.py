"""Reading a response off the bytes of a connection, strictly. Does no I/O.

httptools checks most of the grammar: line ends, token characters, obs-fold, chunk sizes, repeated lengths. It is
lenient about the protocol's name and version, codes below 100, empty lines before and after a message, white space
behind a value, control characters in the reason, framing fields in trailers, and transfer codings other than chunked
(it then reads until the connection ends); and it limits nothing. That is checked here.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import httptools
import httpx

from .framing import FRAMING, Field, FieldNames, FramingError, read_framing

HEAD: Final = 0
LENGTH: Final = 1
CHUNKED: Final = 2
UNTIL_CLOSE: Final = 3
NOTHING: Final = 4

BLANK_LINE = b"\r\n\r\n"
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # What a reason may not contain (RFC 9112 §4).


class HeadLimits(NamedTuple):
    """How much a server may say about its response.

    Attributes:
        max_bytes: Of a head, with the interim responses before it; of trailers; of chunk framing without any body.
        max_fields: In a head, and in trailers.
    """

    max_bytes: int = 65_536
    max_fields: int = 100


class ResponseReader:
    """One response, fed in pieces of any size.

    Attributes:
        status: The final status code; 0 until the final head is complete. Interim responses (1xx) are read over.
        version, reason: Of the final status line.
        fields: The final head's fields, names as sent, values without white space around them.
        trailers: The fields after a chunked body; filled when it is complete.
        pieces, buffered: Body that nobody has taken yet, and its size in bytes.
        started: Something was fed.
        complete: The response has ended, and everything of it is here.
        keep_alive: Another request may follow on this connection, as far as the response says.
        excess: Bytes came after the end: the connection is out of step.
    """

    __slots__ = (
        "_framing",
        "_head_bytes",
        "_head_ended",
        "_head_only",
        "_left",
        "_limits",
        "_names",
        "_parser",
        "_sink",
        "_tail",
        "buffered",
        "complete",
        "excess",
        "fields",
        "keep_alive",
        "pieces",
        "reason",
        "started",
        "status",
        "trailers",
        "version",
    )

    on_chunk_header = None  # httptools looks for these two as well.
    on_chunk_complete = None

    def __init__(self, head_only: bool, limits: HeadLimits, names: FieldNames) -> None:
        """`head_only`: this answers a HEAD request, so no body follows whatever the fields say."""
        self._head_only = head_only
        self._limits = limits
        self._names = names
        self._framing = HEAD
        self._parser: httptools.HttpResponseParser | None = None
        self._head_bytes = 0
        self._head_ended = False
        self._tail = b""
        self.status = 0
        self.version = b""
        self.reason = b""
        self.fields: list[Field] = []
        self._sink = self.fields
        self.trailers: list[Field] = []
        self.pieces: list[bytes] = []
        self.buffered = 0
        self.started = False
        self.complete = False
        self.excess = False

    def feed(self, data: bytes) -> None:
        """Take in the next bytes of the connection.

        Raises:
            httpx.RemoteProtocolError: They are not, or no longer, a response that every reader reads alike.
        """
        self.started = True
        try:
            while self._framing == HEAD:
                data = self._feed_head(data)
                if not data:
                    return
            if self.complete:
                self.excess = True
            elif self._framing == LENGTH:
                self._feed_length(data)
            elif self._parser is not None:  # Past the head, only chunks need it.
                self._feed_chunks(self._parser, data)
            else:
                self.on_body(data)
        except (FramingError, httptools.HttpParserError) as error:
            raise httpx.RemoteProtocolError(f"The response is malformed: {error}") from error
        except httptools.HttpParserUpgrade as error:
            raise httpx.RemoteProtocolError("The server switched protocols") from error

    def feed_eof(self) -> None:
        """The peer has closed its side: the end of a response that has no other, the breaking off of any other."""
        if self._framing == UNTIL_CLOSE:
            self.complete = True
        elif not self.complete:
            raise httpx.RemoteProtocolError(self._cut_short())

    def take(self) -> bytes:
        """The body that has arrived since the last call, in one piece."""
        pieces = self.pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self.pieces = []
        self.buffered = 0
        return body

    def _cut_short(self) -> str:
        if not self.started:
            return "The server disconnected without sending a response"
        part = "head" if self._framing == HEAD else "body"
        return f"The server closed the connection in the middle of the response's {part}"

    # The head.

    def _feed_head(self, data: bytes) -> bytes:
        """Read as far as the head's empty line; what is behind it is returned."""
        parser = self._parser
        if parser is None:
            self._parser = parser = httptools.HttpResponseParser(self)
        if len(self.version) < 8:
            self.version = (self.version + data[:8])[:8]
        tail = self._tail
        found = (tail + data).find(BLANK_LINE) if tail else data.find(BLANK_LINE)
        end = found + 4 - len(tail) if found >= 0 else len(data)
        self._head_bytes += end
        if self._head_bytes > self._limits.max_bytes:
            raise FramingError("its head is too large")
        head = data[:end]
        parser.feed_data(head)
        # Where this reader and httptools disagree about the head's end, so would two others.
        if self._head_ended != (found >= 0):
            raise FramingError("its head does not end in an empty line")
        if found < 0:
            self._tail = (tail + head)[-3:]
            return b""
        self._end_head(parser.get_status_code())
        return data[end:]

    def _end_head(self, status: int) -> None:
        if self.version not in {b"HTTP/1.1", b"HTTP/1.0"}:
            raise FramingError("it is not HTTP/1.1 or HTTP/1.0")
        if status < 100 or status == 101:
            raise FramingError(f"nobody asked for status {status}")
        if len(self.fields) > self._limits.max_fields:
            raise FramingError("it has too many fields")
        if not self.reason.isalpha() and CONTROL.search(self.reason) is not None:
            raise FramingError("its reason contains control characters")
        if status >= 200:
            self._expect_body(status)
            self.status = status
            return
        self._parser = None
        self._head_ended = False
        self._tail = self.version = self.reason = b""
        self.fields.clear()

    def _expect_body(self, status: int) -> None:
        """Find out what follows the head (RFC 9112 §6.3)."""
        length, chunked, options, _ = read_framing(self.fields, self._names)
        modern = self.version == b"HTTP/1.1"
        if chunked and not modern:
            raise FramingError("HTTP/1.0 has no chunks")
        self.keep_alive = modern if not options else b"close" not in options and (modern or b"keep-alive" in options)
        self._head_bytes = 0
        if self._head_only or status in {204, 304}:
            self._framing = NOTHING
            self.complete = True
        elif chunked:
            self._framing = CHUNKED
            self._tail = b""
            self._sink = self.trailers
            return
        elif length is not None:
            self._framing = LENGTH
            self._left = length
            self.complete = not length
        else:
            self._framing = UNTIL_CLOSE
            self.keep_alive = False
        self._parser = None  # It holds on to this reader; and lengths are counted here, without copying the body.

    # The body.

    def _feed_length(self, data: bytes) -> None:
        left = self._left - len(data)
        if left <= 0:
            self.complete = True
            if left < 0:
                self.excess = True
                data = data[:left]
        self._left = left
        self.pieces.append(data)
        self.buffered += len(data)

    def _feed_chunks(self, parser: httptools.HttpResponseParser, data: bytes) -> None:
        before = self.buffered
        try:
            parser.feed_data(data)
        except httptools.HttpParserError:
            if not self.complete:  # Else it is what came behind the end that is malformed.
                raise
        self._tail = data[-5:] if len(data) >= 5 else (self._tail + data)[-5:]
        if self.complete:
            self._end_chunks()
        elif self.buffered != before:
            self._head_bytes = 0
        else:
            # Sizes, extensions and trailers: nothing that a consumer sees, so it must not go on for ever.
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.max_bytes:
                raise FramingError("its chunk extensions or trailers are too large")

    def _end_chunks(self) -> None:
        self._parser = None
        # The line before the last, empty one is not empty; if it is, httptools has read over an empty line too many.
        self.excess = not self._tail.endswith(BLANK_LINE) or self._tail.startswith(b"\n")
        if not self.trailers:
            return
        if len(self.trailers) > self._limits.max_fields or sum(map(field_size, self.trailers)) > self._limits.max_bytes:
            raise FramingError("its trailers are too large")
        if any(name.lower() in FRAMING for name, _ in self.trailers):
            raise FramingError("its trailers contradict its framing")

    # What httptools calls.

    def on_message_begin(self) -> None:
        if self.complete:
            raise FramingError("a second response follows")

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self._sink.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self._head_ended = True

    def on_body(self, data: bytes) -> None:
        self.pieces.append(data)
        self.buffered += len(data)

    def on_message_complete(self) -> None:
        if self._framing == CHUNKED:
            self.complete = True


def field_size(field: Field) -> int:
    """What a field occupies on the wire, its colon and line end included."""
    return len(field[0]) + len(field[1]) + 4
