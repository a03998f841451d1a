"""Which header fields cross the gateway, in either direction (RFC 9110 §7.6.1)."""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple, Self

from starlette.types import Scope

from auth import IdentitySigner
from wire import folded_name

from .errors import UpstreamBroken
from .framing import FieldNames
from .request_head import field_lines

Fields = list[tuple[bytes, bytes]]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Said = tuple[bytes | str, ...]  # What of a request has a say in what crosses of its header.

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_KEPT_FROM_UPSTREAM = _HOP_BY_HOP | {
    b"access-control-request-headers",
    b"access-control-request-method",
    b"access-control-request-private-network",
    b"authorization",
    b"content-length",
    b"cookie",
    b"expect",
    b"forwarded",
    b"host",
    b"origin",
    b"x-api-key",
    b"x-real-ip",
    b"x-request-id",
}
# What these say changes nothing of what crosses; who calls is said in them alone.
_WITHOUT_EFFECT = _KEPT_FROM_UPSTREAM - {b"connection", b"host"}
# Some engines take from X-Forwarded-User and its like who calls: whatever begins so is for proxies to say.
_PREFIXES_KEPT_FROM_UPSTREAM = (b"x-attach-", b"x-forwarded-")
_TOLD_BY_PROXIES = frozenset({b"x-forwarded-host", b"x-forwarded-proto"})
_TOLD = _TOLD_BY_PROXIES | {b"x-forwarded-for"}
_MOST_NAMES = 1024
MOST_REMEMBERED = 512
MOST_REMEMBERED_BYTES = 4096  # Of each; the fields that a caller sends beside its token are a few hundred.
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# The gateway writes its own; an answer with two of them is malformed (RFC 9110 §5.3).
# Alt-Svc would send browsers around the gateway (RFC 7838 §2.1).
_KEPT_FROM_CLIENT = _HOP_BY_HOP | {b"alt-svc", b"date", b"server", b"x-request-id"}
_OURS_TO_SAY = (b"access-control-", b"x-attach-", b"x_attach_")


DROPPED, CROSSES, CONNECTION, HOST, TOLD = range(5)


class _Crossing(dict[bytes, int]):
    """What becomes of a caller's field, by its name: worked out once, for clients all send the same few."""

    def __missing__(self, name: bytes) -> int:
        kind = _kind(name)
        if len(self) < _MOST_NAMES and len(name) <= 64:
            self[name] = kind
        return kind


def _kind(name: bytes) -> int:
    if name == b"connection":
        return CONNECTION
    if name == b"host":
        return HOST
    if name in _TOLD:
        return TOLD
    folded = folded_name(name)
    kept = folded in _KEPT_FROM_UPSTREAM or folded.startswith(_PREFIXES_KEPT_FROM_UPSTREAM)
    return DROPPED if kept else CROSSES


class RequestHeaders:
    """Builds the header that one upstream sees.

    Args:
        host: The upstream's own `Host`.
        credential: The gateway's own `Authorization` value for it; None sends none.
        signer: Signs who calls, for an upstream that checks; None sends no such token.
        trusted_proxies: Peers whose `X-Forwarded-*` is believed. Everybody else's is replaced.
    """

    def __init__(
        self,
        *,
        host: str,
        credential: str | None,
        signer: IdentitySigner | None = None,
        trusted_proxies: Sequence[Network] = (),
    ) -> None:
        self._signer = signer
        self.own: Fields = [(b"host", host.encode("ascii"))]
        if credential is not None:
            self.own.append((b"authorization", credential.encode("latin-1")))
        self._kinds = _Crossing()
        self._names = FieldNames()
        self.remembered: dict[Said, bytes] = {}
        self._trusted = lru_cache(maxsize=1024)(lambda peer: _is_within(peer, trusted_proxies))
        self._stamped = lru_cache(maxsize=1024)(lambda stamp: field_lines(stamp, self._names))

    def head(self, scope: Scope, line: bytes, framing: bytes) -> bytes:
        """A head for the request in `scope`, from its first line and its last ones.

        Between them are the caller's fields that may cross, ours, and the stamp last. What a caller says beside who it
        is, it says again with its next request: those lines are kept.

        Raises:
            httpx.LocalProtocolError: Two servers could read the fields differently.
        """
        state = scope["state"]
        lines = self._lines(scope)
        name: bytes = state["public_request_id"]
        if not name.isalnum():
            field_lines([(b"x-request-id", name)], self._names)
        ours = self._stamped(tuple(state.get("stamp", ())))
        if self._signer is not None and state.get("identity") is not None:
            token = self._signer.token(state["identity"], state["session_id"])
            ours += field_lines([(b"x-attach-identity", token.encode("ascii"))], self._names)
        return b"".join((line, lines, b"x-request-id: ", name, b"\r\n", ours, framing))

    def _lines(self, scope: Scope) -> bytes:
        fields, derived = scope.get("extensions", {}).get("attach.head", (None, {}))
        if fields is not scope["headers"]:
            derived = {}
        lines: bytes | None = derived.get(self)
        if lines is None:
            said = _said(scope)
            derived[self] = lines = self.remembered.get(said) or self._write(said, scope)
        return lines

    def _write(self, said: Said, scope: Scope) -> bytes:
        lines = field_lines(self._crossing(scope), self._names, hosts=1)
        if sum(map(len, said)) <= MOST_REMEMBERED_BYTES:
            if len(self.remembered) >= MOST_REMEMBERED:
                self.remembered.clear()
            self.remembered[said] = lines
        return lines

    def _crossing(self, scope: Scope) -> Fields:
        """What crosses of the caller's fields, and what the gateway says of the way here: it follows from `_said`."""
        fields = self.own.copy()
        told: Fields = []
        connection: Fields = []
        host = b""
        for field in scope["headers"]:
            kind = self._kinds[field[0]]
            if kind == CROSSES:
                # The white space behind a value, which servers leave there, is not part of it (RFC 9110 §5.5).
                fields.append((field[0], field[1].strip(b" \t")))
            elif kind == CONNECTION:
                connection.append(field)
            elif kind == HOST:
                host = field[1]
            elif kind == TOLD:
                told.append(field)
        if named := _named(connection):
            ours = len(self.own)
            fields[ours:] = [field for field in fields[ours:] if field[0] not in named]
        return fields + self._forwarded(scope, host, told)

    def _forwarded(self, scope: Scope, host: bytes, told: Fields) -> Fields:
        """What the gateway says of the way here; `told` is what the peer said of it."""
        client = scope.get("client")
        peer = client[0] if client else ""
        way, proto = peer.encode(), scope["scheme"].encode()
        if told and peer and self._trusted(peer):
            way = b", ".join([*(value for name, value in told if name == b"x-forwarded-for"), way])
            said = {name: value for name, value in told if name in _TOLD_BY_PROXIES}
            proto, host = said.get(b"x-forwarded-proto", proto), said.get(b"x-forwarded-host", host)
        said_now = [(b"x-forwarded-for", way), (b"x-forwarded-proto", proto), (b"x-forwarded-host", host)]
        return said_now if way and proto and host else [field for field in said_now if field[1]]


def _said(scope: Scope) -> Said:
    client = scope.get("client")
    said: list[bytes | str] = [client[0] if client else "", scope["scheme"]]
    for name, value in scope["headers"]:
        if name not in _WITHOUT_EFFECT:
            said.append(name)
            said.append(value)
    return tuple(said)


class AnswerHead(NamedTuple):
    """Of an upstream's answer, what its client sees.

    Attributes:
        fields: In the order they came, names in lower case.
        media_type: "" where what follows is compressed.
        has_length: It says how long it is going to be.
    """

    fields: Fields
    media_type: str
    has_length: bool

    @classmethod
    def of(cls, status: int, fields: Iterable[tuple[bytes, bytes]]) -> Self:
        """Raises `UpstreamBroken`, as `answer_headers` does."""
        crossing = answer_headers(fields, status=status)
        by_name = dict(crossing)
        media_type = b"" if b"content-encoding" in by_name else by_name.get(b"content-type", b"")
        return cls(crossing, media_type.decode("latin-1"), b"content-length" in by_name)


def answer_headers(headers: Iterable[tuple[bytes, bytes]], *, status: int) -> Fields:
    """The fields of an upstream's answer that its client sees, in the order they came.

    The upstream's CORS rules stay here: the gateway has its own, and two answers to one question open the wrong door.
    So does what only the gateway may say of a caller.

    Raises:
        UpstreamBroken: The status or a value is none (RFC 9110 §15, §5.5).
    """
    fields = [(name.lower(), value) for name, value in headers]
    if not 200 <= status <= 599 or _CONTROL.search(b"".join([value for _, value in fields])):
        raise UpstreamBroken
    dropped = _KEPT_FROM_CLIENT
    names = {name for name, _ in fields}
    if b"connection" in names:
        dropped |= _named([field for field in fields if field[0] == b"connection"])
    # A length does not count beside chunks (RFC 9112 §6.3), and could be a lie. With these two statuses no content
    # follows, whatever it says (RFC 9110 §8.6), and servers trip over it.
    if b"transfer-encoding" in names or status in (204, 304):
        dropped |= {b"content-length"}
    return [field for field in fields if field[0] not in dropped and not field[0].startswith(_OURS_TO_SAY)]


def _named(connection: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """The fields that `Connection` names (RFC 9110 §7.6.1)."""
    options = {option.strip().lower() for _, value in connection for option in value.split(b",")}
    # Framing is this hop's own business: a client that names it must not change how a body is read.
    return frozenset(options - {b"content-length"})


def _is_within(peer: str, networks: Sequence[Network]) -> bool:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:  # a UNIX socket has no address
        return False
    return any(address in network for network in networks)
