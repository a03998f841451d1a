"""The beginning of a request's body, read before it is forwarded, and read again by whoever forwards it."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from starlette.types import Message, Receive

Fields = list[tuple[bytes, bytes]]

LARGE_BYTES = 64 * 1024  # What is larger is worked on in a thread.

# RFC 9110 §8.4.1; "deflate" comes with and without its zlib wrapper.
_WINDOW_BITS: Mapping[bytes, int] = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
_TELLING = frozenset({b"content-length", b"transfer-encoding", b"content-encoding", b"accept-encoding"})


class UnreadableEncoding(Exception):
    """The body is compressed in a way that is not read here, or to more than is read. Sent plain, it is welcome."""

    def __init__(self) -> None:
        super().__init__("This request is read here: send its body without Content-Encoding, or a smaller one as gzip.")


@dataclass(slots=True)
class Body:
    """What has come of a body.

    Attributes:
        content: All of it, or its beginning.
        whole: Nothing follows.
        left: The client went away instead of sending it.
    """

    content: bytes = b""
    whole: bool = False
    left: bool = False

    def replay(self, receive: Receive) -> Receive:
        """A `receive` that begins with what was read."""
        if self.left:
            first: Message | None = {"type": "http.disconnect"}
        else:
            first = {"type": "http.request", "body": self.content, "more_body": not self.whole}

        async def again() -> Message:
            nonlocal first
            if first is None:
                return await receive()
            message, first = first, None
            return message

        return again


class Announced(NamedTuple):
    """What a request's header says about its body and its answer's.

    Attributes:
        content: There is a body (RFC 9112 §6).
        coding: Its codings, in the order they were applied; b"" for none.
        other: All fields but `Content-Encoding` and `Accept-Encoding`.
        codings: The fields `Content-Encoding`.
    """

    content: bool
    coding: bytes
    other: Fields
    codings: Fields


def announced(headers: Iterable[tuple[bytes, bytes]]) -> Announced:
    """Read a header in one pass."""
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
    if not codings:  # As with nearly every request.
        return Announced(content, b"", other, codings)
    coding = b",".join(value for _, value in codings).strip().lower()
    return Announced(content, b"" if coding == b"identity" else coding, other, codings)


async def read_body(receive: Receive, *, limit: int) -> Body:
    """Read a body up to the piece that goes beyond `limit` bytes."""
    message = await receive()
    if message["type"] == "http.disconnect":
        return Body(left=True)
    first = message.get("body", b"")
    if not message.get("more_body", False):  # As nearly every request comes.
        return Body(first, whole=True)
    pieces, size = [first], len(first)
    while size <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            return Body(left=True)
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if not message.get("more_body", False):
            return Body(b"".join(pieces), whole=True)
    return Body(b"".join(pieces))


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
