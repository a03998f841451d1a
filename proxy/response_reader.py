"""Reading a response off the bytes of a connection. Does no I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import httptools
import httpx

from .chunk_reader import ChunkReader
from .framing import Field, FramingError
from .response_head import BLANK_LINE, HeadParser, HeadReader, ResponseHead

HEAD: Final = 0
LENGTH: Final = 1
CHUNKS: Final = 2
UNTIL_CLOSE: Final = 3
NOTHING: Final = 4

PENDING = ResponseHead(version=b"", status=0, reason=b"", fields=(), length=None, chunked=False, keep_alive=False)


def _nothing(_data: bytes) -> bytes:
    return b""


class ResponseReader:
    """One response, fed in pieces of any size.

    Attributes:
        head: The final head; its status is 0 until it is complete. Interim responses (1xx) are read over.
        pieces: Body that nobody has taken yet.
        buffered: About how many bytes that is; with chunks, as they came.
        sole: Takes the body out of bytes of the connection that are one whole chunk of it and nothing else, its size in
            its usual spelling; b"" where they are anything else, and nothing is taken in. Only while `pieces` is empty.
        trailers: The fields behind a chunked body; filled when it is complete.
        started: Something was fed.
        complete: The response has ended, and everything of it is here.
        keep_alive: Another request may follow on this connection, as far as the response says.
        excess: Bytes came after the end: the connection is out of step.
    """

    __slots__ = (
        "_chunks",
        "_framing",
        "_head_bytes",
        "_head_only",
        "_left",
        "_parser",
        "_partial",
        "_tail",
        "buffered",
        "complete",
        "excess",
        "head",
        "keep_alive",
        "pieces",
        "sole",
        "started",
        "trailers",
    )

    def __init__(self, head_only: bool, parser: HeadParser) -> None:
        """`head_only`: this answers a HEAD request, so no body follows whatever the fields say."""
        self._head_only = head_only
        self._parser = parser
        self._framing = HEAD
        self._head_bytes = 0
        self._partial: HeadReader | None = None
        self._tail = b""
        self._chunks: ChunkReader | None = None
        self._left: int
        self.head = PENDING
        self.pieces: list[bytes] = []
        self.buffered = 0
        self.sole: Callable[[bytes], bytes] = _nothing
        self.trailers: list[Field] = []
        self.started = False
        self.complete = False
        self.keep_alive = False
        self.excess = False

    def feed(self, data: bytes) -> None:
        """Take in the next bytes of the connection.

        Raises:
            httpx.RemoteProtocolError: They are not, or no longer, a response that every reader reads alike.
        """
        try:
            if not self.started:
                self.started = True
                data = self._feed_known_head(data)
                if not data:
                    return
            while self._framing == HEAD:
                data = self._feed_head(data)
                if not data:
                    return
            if (chunks := self._chunks) is not None:
                chunks.feed(data)
                self.buffered += len(data)
                if chunks.complete:
                    self._end_chunks(chunks)
            elif self.complete:
                self.excess = True
            elif self._framing == LENGTH:
                self._left = left = self._left - len(data)
                if left <= 0:
                    self.complete = True
                    if left < 0:
                        self.excess = True
                        data = data[:left]
                self.pieces.append(data)
                self.buffered += len(data)
            else:
                self.pieces.append(data)
                self.buffered += len(data)
        except (FramingError, httptools.HttpParserError) as error:
            raise httpx.RemoteProtocolError(f"The response is malformed: {error}") from error
        except httptools.HttpParserUpgrade as error:
            raise httpx.RemoteProtocolError("The server switched protocols") from error

    def feed_eof(self) -> None:
        """The peer has closed its side: the end of a response that has no other, the breaking off of any other.

        Raises:
            httpx.RemoteProtocolError: The response is cut short.
        """
        if self._framing == UNTIL_CLOSE:
            self.complete = True
        elif not self.complete:
            raise httpx.RemoteProtocolError(self._cut_short())

    def stop(self) -> None:
        """Nothing more is fed; what has arrived may still be taken."""
        self.sole = _nothing
        if self._chunks is not None:
            self._chunks.stop()

    def take(self) -> bytes:
        """The body that has arrived since the last call, in one piece."""
        pieces = self.pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.buffered = 0
        return body

    def _feed_known_head(self, data: bytes) -> bytes:
        """Read a head that was read before, if the response begins with one; what is behind it is returned."""
        end = data.find(BLANK_LINE) + 4
        head = self._parser.known.get(data[:end])
        if head is None or head.status < 200:
            return data
        self._expect_body(head)
        return data[end:]

    def _feed_head(self, data: bytes) -> bytes:
        """Read as far as the head's empty line; what is behind it is returned."""
        tail = self._tail
        found = (tail + data).find(BLANK_LINE) if tail else data.find(BLANK_LINE)
        end = found + 4 - len(tail) if found >= 0 else len(data)
        self._head_bytes += end
        if self._head_bytes > self._parser.limits.max_bytes:
            raise FramingError("its head is too large")
        if found < 0:
            self._feed_partial(data)
            return b""
        if self._partial is None:
            head = self._parser.parse(data[:end])
        else:
            self._partial.feed(data[:end])
            head = self._partial.head(self._parser.limits, self._parser.names)
            self._partial = None
            self._tail = b""
        if head.status >= 200:
            self._expect_body(head)
        return data[end:]

    def _feed_partial(self, data: bytes) -> None:
        """Read the part of a head, so that what is no HTTP at all is noticed before it ends."""
        self._partial = self._partial or HeadReader()
        self._partial.feed(data)
        if self._partial.ended:
            raise FramingError("its head does not end in an empty line")
        self._tail = (self._tail + data)[-3:]

    def _expect_body(self, head: ResponseHead) -> None:
        """Find out what follows the head (RFC 9112 §6.3)."""
        self.keep_alive = head.keep_alive
        length = head.length
        if self._head_only or head.status in {204, 304}:
            self._framing = NOTHING
            self.complete = True
        elif length is not None:
            self._framing = LENGTH
            self._left = length
            self.complete = not length
        elif head.chunked:
            self._framing = CHUNKS
            self._chunks = ChunkReader(self.pieces, self._parser.limits)
            self.sole = self._chunks.sole
        else:
            self._framing = UNTIL_CLOSE
            self.keep_alive = False
        self.head = head

    def _end_chunks(self, chunks: ChunkReader) -> None:
        self.excess = chunks.excess
        if not self.complete:
            self.complete = True
            self.trailers += chunks.trailers

    def _cut_short(self) -> str:
        if not self.started:
            return "The server disconnected without sending a response"
        part = "head" if self._framing == HEAD else "body"
        return f"The server closed the connection in the middle of the response's {part}"
