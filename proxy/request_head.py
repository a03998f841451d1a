"""Heads of requests as they leave, and the requests that no head can be written for.

A request whose end two readers could see in two places is refused here, before a byte of it is sent (RFC 9112 §11.2).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Sequence

import httpx

from .framing import TOKEN, Field, FieldNames, FramingError, read_framing

Body = bytes | AsyncIterable[bytes] | None

# The target as it comes: bytes above ASCII are not in RFC 3986, yet engines take them.
REQUEST_LINE = re.compile(TOKEN.pattern + rb" [\x21-\x7e\x80-\xff]+ HTTP/1\.1")


def write_head(
    method: bytes, target: bytes, fields: Sequence[Field], body: Body, names: FieldNames
) -> tuple[bytes, int | None, bool]:
    """The head of a request, the length of the body it announces (None: chunks), and whether it closes the connection.

    The fields go out as given and in their order. Where they say nothing about the body's length, a Content-Length is
    added for bytes, and chunks are used for a stream (RFC 9112 §6.3).

    Raises:
        httpx.LocalProtocolError: Two servers could read this request differently, or it contradicts its body.
    """
    line = method + b" " + target + b" HTTP/1.1"
    if REQUEST_LINE.fullmatch(line) is None or method == b"CONNECT":
        raise httpx.LocalProtocolError("The request's method or target cannot be sent")
    try:
        length, chunked, options, hosts = read_framing(fields, names)
    except FramingError as error:
        raise httpx.LocalProtocolError(f"The request cannot be sent: {error}") from error
    if hosts != 1:
        raise httpx.LocalProtocolError("A request needs exactly one Host field")
    lines = [line, *map(b": ".join, fields)]
    if length is not None:
        if (body is None or isinstance(body, bytes)) and length != len(body or b""):
            raise httpx.LocalProtocolError("The request's Content-Length is not the length of its body")
    elif not chunked:
        length, framing = framing_of(body)
        if framing:
            lines.append(framing)
    lines += (b"", b"")
    head = b"\r\n".join(lines)
    # Each line ends in the one CR and LF written here: any other would begin a line, or a request, of its own.
    if len(head) - len(head.translate(None, b"\r\n\0")) != 2 * len(lines) - 2:
        raise httpx.LocalProtocolError("A field of the request contains CR, LF or NUL")
    return head, length, bool(options) and b"close" in options


def framing_of(body: Body) -> tuple[int | None, bytes]:
    """The length of a body that no field declares (None: chunks), and the line that declares it."""
    if not body:
        return 0, b""
    if isinstance(body, bytes):
        return len(body), b"Content-Length: %d" % len(body)
    return None, b"Transfer-Encoding: chunked"
