"""Heads of requests as they leave, and the requests that no head can be written for.

A request whose end two readers could see in two places is refused here, before a byte of it is sent (RFC 9112 §11.2).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Sequence
from functools import lru_cache

import httpx

from .framing import TOKEN, Field, FieldNames, Framing, FramingError, read_framing

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
    line = request_line(method, target)
    length, chunked, options, hosts = _framing_in(fields, names)
    if hosts != 1:
        raise httpx.LocalProtocolError("A request needs exactly one Host field")
    framing = b""
    if length is not None:
        if (body is None or isinstance(body, bytes)) and length != len(body or b""):
            raise httpx.LocalProtocolError("The request's Content-Length is not the length of its body")
    elif not chunked:
        length, framing = framing_of(body)
    head = b"".join((line, _lines(fields), framing, b"\r\n"))
    return head, length, bool(options) and b"close" in options


def request_line(method: bytes, target: bytes) -> bytes:
    """The line a request begins with. Raises httpx.LocalProtocolError."""
    return _usual_line(method, target) if len(target) <= 256 else _checked_line(method, target)


def _checked_line(method: bytes, target: bytes) -> bytes:
    line = method + b" " + target + b" HTTP/1.1"
    if REQUEST_LINE.fullmatch(line) is None or method == b"CONNECT":
        raise httpx.LocalProtocolError("The request's method or target cannot be sent")
    return line + b"\r\n"


_usual_line = lru_cache(maxsize=256)(_checked_line)


def field_lines(fields: Sequence[Field], names: FieldNames, *, hosts: int = 0) -> bytes:
    """Fields as they are sent, none of which says anything about framing and `hosts` of which are a Host.

    So they can be kept, and sent in a head that is otherwise put together from what is known to be no less sound.

    Raises:
        httpx.LocalProtocolError: They say more than that, or two servers could read them differently.
    """
    if _framing_in(fields, names) != (None, False, (), hosts):
        raise httpx.LocalProtocolError("The request's fields contradict its framing")
    return _lines(fields)


def framing_lines(body: Body, fields: Sequence[Field], names: FieldNames) -> tuple[bytes, int | None]:
    """The end of a head that `fields` frame, and the length of the body that it announces (None: chunks).

    Raises:
        httpx.LocalProtocolError: As `write_head` does.
    """
    if isinstance(body, bytes):
        return b"content-length: %d\r\n\r\n" % len(body), len(body)
    length, chunked, _, _ = _framing_in(fields, names)
    if length and body is None:
        raise httpx.LocalProtocolError("The request's Content-Length is not the length of its body")
    added = b""
    if length is None and not chunked:
        length, added = framing_of(body)
    return b"".join((_lines(fields), added, b"\r\n")), length


def _framing_in(fields: Sequence[Field], names: FieldNames) -> Framing:
    try:
        return read_framing(fields, names)
    except FramingError as error:
        raise httpx.LocalProtocolError(f"The request cannot be sent: {error}") from error


def _lines(fields: Sequence[Field]) -> bytes:
    lines = b"".join([b"%b: %b\r\n" % field for field in fields])
    # Each line ends in the one CR and LF written here: any other would begin a line, or a request, of its own.
    if len(lines) - len(lines.translate(None, b"\r\n\0")) != 2 * len(fields):
        raise httpx.LocalProtocolError("A field of the request contains CR, LF or NUL")
    return lines


def framing_of(body: Body) -> tuple[int | None, bytes]:
    """The length of a body that no field declares (None: chunks), and the line that declares it."""
    if not body:
        return 0, b""
    if isinstance(body, bytes):
        return len(body), b"Content-Length: %d\r\n" % len(body)
    return None, b"Transfer-Encoding: chunked\r\n"
