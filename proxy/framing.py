"""Where a message ends and whether another may follow, as its fields say it (RFC 9112 §6, §9.3).

One reading serves requests that leave and responses that arrive: what two readers could read differently is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Field = tuple[bytes, bytes]

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2
FRAMING = frozenset({b"connection", b"content-length", b"host", b"transfer-encoding"})
MAX_DIGITS = 18  # Content-Lengths that every reader can hold in 64 bits.
MAX_KNOWN = 1024


class FramingError(ValueError):
    """A message that can be read in more than one way, or in none."""


class FieldNames:
    """Field names that were seen before, so that each is looked into once.

    `known` maps a name, as spelled, to its lower case if it concerns framing, else to b"". It is bounded: clients
    choose names too.
    """

    __slots__ = ("known",)

    def __init__(self) -> None:
        self.known: dict[bytes, bytes] = {}

    def learn(self, name: bytes) -> bytes:
        """What `known` says about a name it does not hold. Raises FramingError if it is not a token."""
        if TOKEN.fullmatch(name) is None:
            raise FramingError("a field name is not a token")
        lowered = name.lower()
        kind = lowered if lowered in FRAMING else b""
        if len(self.known) < MAX_KNOWN and len(name) <= 64:
            self.known[name] = kind
        return kind


Framing = tuple[int | None, bool, Sequence[bytes], int]


def read_framing(fields: Sequence[Field], names: FieldNames) -> Framing:
    """The Content-Length or None, whether chunks are used, the connection options in lower case, the number of Hosts.

    Raises:
        FramingError: The length is not a number or given more than once, or the transfer coding is not chunked.
    """
    length: int | None = None
    chunked = False
    options: Sequence[bytes] = ()
    hosts = 0
    known = names.known
    for name, value in fields:
        try:
            kind = known[name]
        except KeyError:
            kind = names.learn(name)
        if not kind:
            continue
        if kind == b"host":
            hosts += 1
        elif kind == b"connection":
            options = (*options, *tokens(value))
        elif length is not None or chunked:
            raise FramingError("the length of the body is declared more than once")
        elif kind == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise FramingError("the transfer coding is not chunked")
            chunked = True
        elif value.isdigit() and len(value) <= MAX_DIGITS:
            length = int(value)
        else:
            raise FramingError("the Content-Length is not a decimal number")
    return length, chunked, options, hosts


def tokens(value: bytes) -> list[bytes]:
    """The members of a comma-separated field value, in lower case (RFC 9110 §5.6.1)."""
    return [token.strip(b" \t") for token in value.lower().split(b",")]
