"""The beginning of a request's body, read before it is forwarded, and read again by whoever forwards it."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from starlette.types import Message, Receive

Fields = list[tuple[bytes, bytes]]

# What a header says about a body that is there: its codings, in the order they were applied, b"" for none; all fields
# but `Content-Encoding` and `Accept-Encoding`; and the fields `Content-Encoding`.
Announced: TypeAlias = tuple[bytes, Fields, Fields]

LARGE_BYTES = 64 * 1024  # What is larger is worked on in a thread.

# RFC 9110 §8.4.1; "deflate" comes with and without its zlib wrapper.
_WINDOW_BITS: Mapping[bytes, int] = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
_TELLING = frozenset({b"content-length", b"transfer-encoding", b"content-encoding", b"accept-encoding"})


class UnreadableEncoding(Exception):
    """The body is compressed in a way that is not read here, or to more than is read. Sent plain, it is welcome."""

    def __init__(self) -> None:
        super().__init__("This request is read here: send its body without Content-Encoding, or a smaller one as gzip.")


class Body:
    """What has come of a body, for whoever looks at it before it is forwarded, and for whoever forwards it.

    Attributes:
        content: All of it, or its beginning; what stands here is forwarded.
        whole: Nothing follows.
        left: The client went away instead of sending it.
    """

    __slots__ = ("_receive", "_replayed", "content", "left", "whole")

    def __init__(self, receive: Receive, first: Message) -> None:
        """`first`: what `receive` gave, which nearly always is all."""
        self._receive = receive
        self._replayed = False
        self.content: bytes = first.get("body", b"")
        self.whole = not first.get("more_body", False)
        self.left = first["type"] == "http.disconnect"

    async def read_on(self, limit: int) -> None:
        """Read up to the piece that goes beyond `limit` bytes."""
        pieces, size = [self.content], len(self.content)
        while size <= limit and not self.whole:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.left = True
                return
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            self.whole = not message.get("more_body", False)
        self.content = b"".join(pieces)

    async def receive(self) -> Message:
        """As the server's, which begins with what was read."""
        if self._replayed:
            return await self._receive()
        self._replayed = True
        if self.left:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": self.content, "more_body": not self.whole}


def announced(headers: Iterable[tuple[bytes, bytes]]) -> Announced | None:
    """Read a header in one pass; None: there is no body (RFC 9112 §6)."""
    content = False
    other: Fields = []
    codings: Fields = []
    for field in headers:
        name = field[0]
        if name not in _TELLING:
            other.append(field)
        elif name == b"content-encoding":
            codings.append(field)
        elif name != b"accept-encoding":
            other.append(field)
            content = content or name == b"transfer-encoding" or field[1] != b"0"
    if not content:
        return None
    if not codings:  # As with nearly every request.
        return b"", other, codings
    coding = b",".join([value for _, value in codings]).strip().lower()
    return b"" if coding == b"identity" else coding, other, codings


async def decoded(content: bytes, coding: bytes, *, limit: int) -> bytes:
    """`content` without its coding.

    Raises:
        UnreadableEncoding: Its coding is unknown, it is broken, or it is more than `limit` bytes.
    """
    if len(content) > LARGE_BYTES // 16:  # It may be a thousand times as large as it looks.
        return await asyncio.to_thread(inflate, content, coding, limit)
    return inflate(content, coding, limit)


def inflate(content: bytes, coding: bytes, limit: int) -> bytes:
    """As `decoded`, at once."""
    bits = _WINDOW_BITS.get(coding)
    if bits is None:
        raise UnreadableEncoding
    if bits == 15 and content[:1] and content[0] & 0x0F != 8:  # RFC 1950 §2.2: no zlib wrapper
        bits = -15
    plain = bytearray()
    while content:
        inflater = zlib.decompressobj(bits)
        try:
            plain += inflater.decompress(content, limit + 1 - len(plain))
        except zlib.error:
            raise UnreadableEncoding from None
        if not inflater.eof or len(plain) > limit:
            raise UnreadableEncoding
        content = inflater.unused_data if bits == 31 else b""  # gzip has members (RFC 1952 §2.2)
    return bytes(plain)
