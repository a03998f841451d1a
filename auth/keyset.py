"""The keys of one issuer at one time (RFC 7517 §5)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .jwk import UnusableKey, VerifyingKey, read_jwk

logger = logging.getLogger(__name__)

MAX_KEYS = 100
MAX_CANDIDATES = 4  # How many signatures one token may make us verify.


class KeySet:
    """An issuer's verifying keys, and the names under which it signs with them. Never changes.

    Attributes:
        issuer: The issuer's own name for itself.
        names: Every `iss` that its tokens may carry, `issuer` included.
    """

    __slots__ = ("_by_kid", "_keys", "_members", "issuer", "names")

    def __init__(self, issuer: str, keys: Iterable[VerifyingKey], *, aliases: Iterable[str] = ()) -> None:
        self.issuer = issuer
        self.names = frozenset((issuer, *aliases))
        self._keys = tuple(keys)
        self._members = frozenset(self._keys)
        self._by_kid: dict[str | None, list[VerifyingKey]] = {}
        for key in self._keys:
            self._by_kid.setdefault(key.kid, []).append(key)

    def __contains__(self, key: VerifyingKey) -> bool:
        return key in self._members

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KeySet):
            return NotImplemented
        return (self.issuer, self.names, self._members) == (other.issuer, other.names, other._members)

    def __hash__(self) -> int:
        return hash((self.issuer, self.names, self._members))

    def __iter__(self) -> Iterator[VerifyingKey]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def candidates(self, kid: str | None, alg: str) -> tuple[VerifyingKey, ...]:
        """The keys that may have signed a token with this header: at most four.

        A token that names no key may have been signed by any of the right type.
        """
        named = self._keys if kid is None else self._by_kid.get(kid, ())
        return tuple(key for key in named if key.fits(alg))[:MAX_CANDIDATES]


def read_keys(document: Mapping[str, Any]) -> tuple[VerifyingKey, ...]:
    """The usable keys of a JWK Set; what cannot be used is left out, as RFC 7517 §5 asks.

    Raises:
        ValueError: It is not a JWK Set, or holds more than 100 keys.
    """
    entries = document.get("keys")
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise ValueError("not a JWK Set of bearable size")
    return tuple(key for entry in entries if (key := _usable(entry)) is not None)


def _usable(entry: object) -> VerifyingKey | None:
    if not isinstance(entry, dict):
        return None
    try:
        return read_jwk(entry)
    except UnusableKey as error:
        # Most sets hold keys for encryption. A private key, though, is one that the whole world can sign with by now.
        level = logging.WARNING if str(error) == "private" else logging.DEBUG
        logger.log(level, "jwks.key_ignored", extra={"kid": entry.get("kid"), "reason": str(error)})
        return None
