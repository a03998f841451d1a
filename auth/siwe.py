"""Messages with which an Ethereum account signs in, read to the letter (ERC-4361)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from .ethereum import checksummed

MAX_MESSAGE_BYTES = 4096

# RFC 3986 appendix A. Alternatives never overlap, so that no text takes more than one pass.
_UNRESERVED = r"A-Za-z0-9\-._~"
_SUB_DELIMS = r"!$&'()*+,;="
_ESCAPE = r"%[0-9A-Fa-f]{2}"
_PCHAR = rf"(?:[{_UNRESERVED}{_SUB_DELIMS}:@]|{_ESCAPE})"
_IP_LITERAL = rf"\[(?:[0-9A-Fa-f:.]+|v[0-9A-Fa-f]+\.[{_UNRESERVED}{_SUB_DELIMS}:]+)\]"
_AUTHORITY = (
    rf"(?:(?:[{_UNRESERVED}{_SUB_DELIMS}:]|{_ESCAPE})*@)?"
    rf"(?:{_IP_LITERAL}|(?:[{_UNRESERVED}{_SUB_DELIMS}]|{_ESCAPE})+)"
    r"(?::[0-9]{0,5})?"
)
_SCHEME = r"[A-Za-z][A-Za-z0-9+\-.]*"
_URI = (
    rf"{_SCHEME}:(?://{_AUTHORITY}(?:/{_PCHAR}*)*|/(?:{_PCHAR}+(?:/{_PCHAR}*)*)?|{_PCHAR}+(?:/{_PCHAR}*)*)?"
    rf"(?:\?(?:{_PCHAR}|[/?])*)?(?:#(?:{_PCHAR}|[/?])*)?"
)
_DATE_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})"

# Compiled when the first message comes: a start has no 4 ms for it.
_MESSAGE = (
    rf"(?:(?P<scheme>{_SCHEME})://)?(?P<domain>{_AUTHORITY}) wants you to sign in with your Ethereum account:\n"
    r"(?P<address>0x[0-9A-Fa-f]{40})\n"
    r"\n"
    rf"(?:(?P<statement>[{_UNRESERVED}{_SUB_DELIMS}:/?#\[\]@ ]+)\n)?"
    r"\n"
    rf"URI: (?P<uri>{_URI})\n"
    r"Version: 1\n"
    r"Chain ID: (?P<chain>0|[1-9][0-9]{0,31})\n"
    r"Nonce: (?P<nonce>[A-Za-z0-9]{8,})\n"
    rf"Issued At: (?P<issued>{_DATE_TIME})"
    rf"(?:\nExpiration Time: (?P<expires>{_DATE_TIME}))?"
    rf"(?:\nNot Before: (?P<begins>{_DATE_TIME}))?"
    rf"(?:\nRequest ID: (?P<request_id>{_PCHAR}*))?"
    rf"(?P<resources>\nResources:(?:\n- {_URI})*)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What an account was asked to sign. Times in seconds since the epoch.

    Attributes:
        scheme: Of `domain`, where the message says so.
        domain: Who asks, as an authority (RFC 3986 §3.2).
        address: The account, checksummed.
        uri: What the account signs in to.
    """

    scheme: str | None
    domain: str
    address: str
    statement: str | None
    uri: str
    chain_id: int
    nonce: str
    issued_at: float
    expires_at: float | None
    not_before: float | None
    request_id: str | None
    resources: tuple[str, ...]


def read_message(raw: bytes) -> Message:
    """Read the very bytes that were signed.

    Raises:
        ValueError: They are not, to the letter, such a message, or are more than 4 KiB.
    """
    if len(raw) > MAX_MESSAGE_BYTES:
        raise ValueError("the message is too long")
    found = re.fullmatch(_MESSAGE, raw.decode("ascii"))
    if found is None:
        raise ValueError("not an ERC-4361 message")
    address = found["address"]
    if checksummed(address) != address:
        raise ValueError("the checksum of the address is wrong")
    expires, begins, resources = found["expires"], found["begins"], found["resources"]
    return Message(
        scheme=found["scheme"],
        domain=found["domain"],
        address=address,
        statement=found["statement"],
        uri=found["uri"],
        chain_id=int(found["chain"]),
        nonce=found["nonce"],
        issued_at=_seconds(found["issued"]),
        expires_at=_seconds(expires) if expires is not None else None,
        not_before=_seconds(begins) if begins is not None else None,
        request_id=found["request_id"],
        resources=tuple(resources.split("\n- ")[1:]) if resources is not None else (),
    )


@dataclass(frozen=True, slots=True)
class Origin:
    """A scheme and an authority without the scheme's own port, in lower case (RFC 6454 §4)."""

    scheme: str
    authority: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


_ORIGIN = re.compile(rf"(?P<scheme>https?)://(?P<authority>{_AUTHORITY})(?:[/?#].*)?", re.IGNORECASE)
_PORTS = {"http": ":80", "https": ":443"}


def origin_of(url: str) -> Origin | None:
    """Where an http(s) URL leads; None for any other text."""
    found = _ORIGIN.fullmatch(url)
    return make_origin(found["scheme"], found["authority"]) if found else None


def make_origin(scheme: str, authority: str) -> Origin:
    """The origin of an authority whose scheme is known."""
    scheme, authority = scheme.lower(), authority.lower()
    return Origin(scheme, authority.removesuffix(_PORTS.get(scheme, ":")))


def _seconds(text: str) -> float:
    """A date and time (RFC 3339 §5.6). Raises `ValueError` for the 31st of February and the like."""
    return datetime.fromisoformat(text).timestamp()
