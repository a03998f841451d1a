"""Heads of responses, read strictly.

httptools checks most of the grammar: line ends, token characters, obs-fold, repeated lengths. It is lenient about the
protocol's name and version, codes below 100, empty lines before a head, white space behind a value, control characters
in the reason, and transfer codings other than chunked; and it limits nothing. That is checked here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import httptools

from .framing import Field, FieldNames, FramingError, read_framing

BLANK_LINE = b"\r\n\r\n"
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # What a reason may not contain (RFC 9112 §4).
MAX_REMEMBERED = 64


class HeadLimits(NamedTuple):
    """How much a server may say about its response.

    Attributes:
        max_bytes: Of a head, with the interim responses before it; of trailers; of chunk framing without any body.
        max_fields: In a head, and in trailers.
    """

    max_bytes: int = 65_536
    max_fields: int = 100


@dataclass(slots=True)
class ResponseHead:
    """What a server says before the body.

    Attributes:
        version: b"HTTP/1.1" or b"HTTP/1.0".
        fields: Names as sent, values without white space around them.
        length: The Content-Length, if any.
        chunked: The body, if any, comes in chunks.
        keep_alive: Another response may follow on the connection, if this one has an end of its own.
        derived: What whoever reads responses has made of this one's head, remembered as long as it is. All else of a
            head stays as it is, for it is shared by the responses that begin with the same bytes.
    """

    version: bytes
    status: int
    reason: bytes
    fields: tuple[Field, ...]
    length: int | None
    chunked: bool
    keep_alive: bool
    derived: object = None


class HeadReader:
    """One head, fed to httptools in pieces of any size. `ended`: httptools has seen its empty line."""

    __slots__ = ("_fields", "_parser", "_reason", "_start", "ended")

    # httptools looks for these as well.
    on_message_begin = on_chunk_header = on_chunk_complete = on_body = on_message_complete = None

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._start = b""
        self._reason = b""
        self._fields: list[Field] = []
        self.ended = False

    def feed(self, data: bytes) -> None:
        """Take in more, at most up to the empty line. Raises httptools.HttpParserError or HttpParserUpgrade."""
        if len(self._start) < 8:
            self._start += data[:8]
        self._parser.feed_data(data)

    def head(self, limits: HeadLimits, names: FieldNames) -> ResponseHead:
        """What was fed, up to and including its empty line. Raises FramingError."""
        # Where the caller and httptools disagree about the head's end, so would two others.
        if not self.ended:
            raise FramingError("its head does not end in an empty line")
        status: int = self._parser.get_status_code()
        version = self._start[:8]
        if version not in {b"HTTP/1.1", b"HTTP/1.0"}:
            raise FramingError("it is not HTTP/1.1 or HTTP/1.0")
        if status < 100 or status == 101:
            raise FramingError(f"nobody asked for status {status}")
        if len(self._fields) > limits.max_fields:
            raise FramingError("it has too many fields")
        if CONTROL.search(self._reason) is not None:
            raise FramingError("its reason contains control characters")
        length, chunked, options, _ = read_framing(self._fields, names)
        modern = version == b"HTTP/1.1"
        if chunked and not modern:
            raise FramingError("HTTP/1.0 has no chunks")
        keep_alive = b"close" not in options and (modern or b"keep-alive" in options)
        return ResponseHead(version, status, self._reason, tuple(self._fields), length, chunked, keep_alive)

    # What httptools calls.

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.ended = True


class HeadParser:
    """Reads heads that arrive whole, and remembers some: an engine under load sends the same bytes again and again.

    `known`: those that it remembers, each within the limits.
    """

    __slots__ = ("known", "limits", "names")

    def __init__(self, limits: HeadLimits, names: FieldNames) -> None:
        self.limits = limits
        self.names = names
        self.known: dict[bytes, ResponseHead] = {}

    def parse(self, data: bytes) -> ResponseHead:
        """The head in `data`, which ends in the first empty line. Raises FramingError or what httptools raises."""
        head = self.known.get(data)
        if head is None:
            reader = HeadReader()
            reader.feed(data)
            head = reader.head(self.limits, self.names)
            if len(data) <= 1024:
                if len(self.known) >= MAX_REMEMBERED:
                    self.known.clear()
                self.known[data] = head
        return head
