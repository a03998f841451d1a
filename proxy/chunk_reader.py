"""Chunked bodies (RFC 9112 §7.1)."""

from __future__ import annotations

import re

import httptools

from .framing import FRAMING, Field, FramingError
from .response_head import BLANK_LINE, HeadLimits

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}\r\n")


class ChunkReader:
    """Feeds the chunks of one body to httptools, which checks sizes and line ends.

    Attributes:
        trailers: The fields behind the last chunk; complete when the body is.
        complete: The body and its trailers have ended.
        excess: Bytes came behind that end.
    """

    __slots__ = (
        "_at_border",
        "_limits",
        "_overhead",
        "_parser",
        "_pieces",
        "_tail",
        "complete",
        "excess",
        "on_body",
        "trailers",
    )

    # httptools looks for these as well.
    on_status = on_headers_complete = None

    def __init__(self, pieces: list[bytes], limits: HeadLimits) -> None:
        """`pieces`: where the body goes, a piece for each chunk or part of one."""
        self._pieces = pieces
        self._limits = limits
        self._overhead = 0
        self._tail = b""
        self._at_border = True
        self.on_body = pieces.append
        self.trailers: list[Field] = []
        self.complete = False
        self.excess = False
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._parser.feed_data(HEAD)
        self.trailers.clear()

    def sole(self, data: bytes) -> bytes:
        """The body in `data` where that is `b"%x\r\n%b\r\n"` of it, as most of what servers stream; b"": `feed` it."""
        line = _SIZE_LINES[len(data)]
        if self._at_border and data.startswith(line) and data[-1] == 10 and data[-2] == 13:
            self._overhead = 0
            return data[len(line) : -2]
        return b""

    def feed(self, data: bytes) -> None:
        """Take in more. Raises FramingError or httptools.HttpParserError."""
        if self._at_border and (size := SIZE.match(data)) is not None:
            # One whole chunk that `sole` was not asked for, or with its size in another spelling.
            begin, length = size.end(), int(size[0], 16)
            if length and len(data) == begin + length + 2 and data.endswith(b"\r\n"):
                self._pieces.append(data[begin:-2])
                self._overhead = 0
                return
        self._parse(data)

    def stop(self) -> None:
        """Take nothing more in."""
        self._parser = None  # It holds on to this reader.

    def _parse(self, data: bytes) -> None:
        if self._parser is None:
            self.excess = True
            return
        before = len(self._pieces)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if not self.complete:  # Else what came behind the end is malformed, which does not matter any more.
                raise
            self.excess = True
        self._tail = data[-5:] if len(data) >= 5 else (self._tail + data)[-5:]
        # Behind the end of a chunk, line ends but its own are there only behind a size, of which httptools tells.
        self._at_border = self._at_border and data.endswith(b"\r\n") and not self.complete
        if self.complete:
            self._end()
        elif len(self._pieces) > before:
            self._overhead = 0
        else:
            # Sizes, extensions and trailers: nothing that a consumer sees, so it must not go on for ever.
            self._overhead += len(data)
            if self._overhead > self._limits.max_bytes:
                raise FramingError("its chunk extensions or trailers are too large")

    def _end(self) -> None:
        self.stop()
        # httptools reads over empty lines behind a message; but the line before the last is never an empty one.
        if not self._tail.endswith(BLANK_LINE) or self._tail.startswith(b"\n"):
            self.excess = True
        size = sum(len(name) + len(value) + 4 for name, value in self.trailers)
        if size > self._limits.max_bytes or len(self.trailers) > self._limits.max_fields:
            raise FramingError("its trailers are too large")
        if any(name.lower() in FRAMING for name, _ in self.trailers):
            raise FramingError("its trailers contradict its framing")

    # What httptools calls.

    def on_message_begin(self) -> None:
        if self.complete:
            raise FramingError("another response follows")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.trailers.append((name, value.rstrip(b" \t")))

    def on_chunk_header(self) -> None:
        self._at_border = False

    def on_chunk_complete(self) -> None:
        self._at_border = True

    def on_message_complete(self) -> None:
        self.complete = True


class _SizeLines(dict[int, bytes | tuple[()]]):
    """What a whole chunk begins with that is so many bytes long, its framing included; (), with which nothing begins,
    where none is.
    """

    def __missing__(self, length: int) -> bytes | tuple[()]:
        for digits in range(1, 9):
            line = b"%x\r\n" % max(length - digits - 4, 0)
            if len(line) == digits + 2 and length > digits + 4:
                if len(self) < 1024:
                    self[length] = line
                return line
        return ()


_SIZE_LINES = _SizeLines()
