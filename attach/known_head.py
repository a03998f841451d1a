"""A head that was parsed before, known again by its bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Fields = list[tuple[bytes, bytes]]

_MOST_BYTES = 16 * 1024
_MOST_DIGITS = 9
_LENGTH = b"content-length"
# What decides how the content is framed or who takes it: the parser's to read, each time.
_PARSED_EACH_TIME = frozenset({b"connection", b"expect", b"transfer-encoding", b"upgrade"})
_KEEP_ALIVE = b"keep-alive"  # says nothing that HTTP/1.1 does not


class KnownHead:
    """A request's head, for the next one on its connection that differs from it in nothing but the content's length.

    Clients send the same fields with every request: to compare them takes a parser, with a call for each, many times
    as long, and what layers make of them stays the same too.

    Attributes:
        derived: What layers have made of this head, each under itself.
    """

    __slots__ = ("_fields", "_hash", "_key", "_length_at", "_length_field", "_rest", "_scope", "derived")

    def __init__(
        self, raw: bytes, *, length_at: int, length_field: int, scope: dict[str, Any], derived: dict[object, object]
    ) -> None:
        self._fields: Fields = list(scope["headers"])
        behind = length_at + len(self._fields[length_field][1])
        self._length_at = length_at
        self._length_field = length_field
        self._rest = len(raw) - behind
        self._key = raw[:length_at] + raw[behind:]
        self._hash = hash(self._key)
        self._scope: dict[str, Any] = scope.copy()
        self.derived = derived

    def find(self, piece: bytes) -> tuple[bytes, int] | None:
        """The Content-Length in `piece` and where its content begins, if it begins with this head; else None."""
        at = self._length_at
        stop = piece.find(b"\r", at, at + _MOST_DIGITS + 1)
        begin = stop + self._rest
        key = piece[:at] + piece[stop:begin]
        # By their hashes first: how long it takes tells nobody how much of a credential was right.
        if hash(key) != self._hash or key != self._key:
            return None
        length = piece[at:stop]
        return (length, begin) if length.isdigit() else None

    def scope(self, length: bytes) -> dict[str, Any]:
        """What the parser would make of this head with that Content-Length, without what is a request's own."""
        scope = self._scope.copy()
        scope["headers"] = fields = self._fields.copy()
        if fields[self._length_field][1] != length:
            fields[self._length_field] = _LENGTH, length
        return scope


def known_head(piece: bytes, target: bytes, scope: dict[str, Any], derived: dict[object, object]) -> KnownHead | None:
    """The head of HTTP/1.1 that `piece` begins with and that was read as `scope`; None where it is not to be known.

    It must be written in the plainest way: what was read of it, written down, is what came, so that nothing else can
    have been meant.
    """
    fields: Fields = list(scope["headers"])
    at = [index for index, (name, _) in enumerate(fields) if name == _LENGTH]
    if len(at) != 1 or any(name in _PARSED_EACH_TIME and value.lower() != _KEEP_ALIVE for name, value in fields):
        return None
    length = fields[at[0]][1]
    before = b"%b %b HTTP/1.1\r\n%b%b: " % (scope["method"].encode(), target, _written(fields[: at[0]]), _LENGTH)
    plain = b"%b%b\r\n%b\r\n" % (before, length, _written(fields[at[0] + 1 :]))
    raw = piece[: len(plain)]
    if len(raw) > _MOST_BYTES or raw.lower() != plain.lower() or len(length) > _MOST_DIGITS or not length.isdigit():
        return None
    return KnownHead(raw, length_at=len(before), length_field=at[0], scope=scope, derived=derived)


def _written(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % field for field in fields)
