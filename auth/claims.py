"""What the claims of a JWT must say before anyone is believed (RFC 7519 §4.1), each strictly typed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .interface import InvalidToken

MAX_USER_CHARS = 1024  # It travels in a header. OpenID Connect Core §2 allows 255 for `sub`; a prefix may be a URL.
MAX_NUMERIC_DATE = 253_402_300_799  # The end of the year 9999; an issuer that counts milliseconds is beyond it.


def check_times(claims: Mapping[str, Any], *, now: float, leeway: float) -> float:
    """Check that the token is in force at `now`, with `leeway` seconds for clocks that differ. Returns its `exp`."""
    expires_at, issued_at = numeric_date(claims, "exp"), numeric_date(claims, "iat")
    if now - leeway >= expires_at:
        raise InvalidToken("expired")
    if issued_at > now + leeway:
        raise InvalidToken("early")
    if "nbf" in claims and numeric_date(claims, "nbf") > now + leeway:
        raise InvalidToken("early")
    return expires_at


def check_audience(claims: Mapping[str, Any], audiences: Collection[str], *, resource: str | None = None) -> None:
    """Check that the token is meant for one of `audiences` (RFC 7519 §4.1.3), or for a URL below `resource`."""
    named = claims.get("aud")
    if isinstance(named, str):
        named = [named]
    if not isinstance(named, list) or not all(isinstance(audience, str) for audience in named):
        raise InvalidToken("audience")
    below = None if resource is None else f"{resource.rstrip('/')}/"
    if not any(audience in audiences or (below and audience.startswith(below)) for audience in named):
        raise InvalidToken("audience")


def check_bearer(claims: Mapping[str, Any]) -> None:
    """Refuse a token that only the holder of some key may use: we never ask for that proof (RFC 7800 §3.1)."""
    if "cnf" in claims:
        raise InvalidToken("bound")


def check_access(claims: Mapping[str, Any], *, id_tokens: bool = False) -> None:
    """Refuse an ID token where it can be told from an access token; with `id_tokens` both will do.

    Some issuers write what a token is for; and only ID tokens carry the hash of another token (OpenID Connect Core
    §3.1.3.6, §3.3.2.11). A `nonce` says nothing: there are issuers that copy it into access tokens.
    """
    uses = ("access", "id") if id_tokens else ("access",)
    if "token_use" in claims and claims["token_use"] not in uses:
        raise InvalidToken("id_token")
    if not id_tokens and ("at_hash" in claims or "c_hash" in claims):
        raise InvalidToken("id_token")


def text(claims: Mapping[str, Any], name: str) -> str:
    """A claim that must be there and must be text with something in it."""
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidToken("claims")
    return value


def numeric_date(claims: Mapping[str, Any], name: str) -> float:
    """A NumericDate (RFC 7519 §2) that must be there: seconds since the epoch, up to the year 9999."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_NUMERIC_DATE:
        raise InvalidToken("claims")
    return float(value)


def scopes(claims: Mapping[str, Any], name: str | None = None) -> frozenset[str]:
    """What the token allows: the claim `name`, else `scope` (RFC 9068 §2.2.3) and `scp`, as some issuers call it.

    A text holds them with spaces between; a list holds one each. A claim of another form allows nothing.
    """
    found: set[str] = set()
    for value in map(claims.get, (name,) if name else ("scope", "scp")):
        if isinstance(value, str):
            found.update(value.split())
        elif isinstance(value, list):
            found.update(scope for scope in value if isinstance(scope, str))
    return frozenset(found)


def scope_text(scopes: Collection[str]) -> str:
    """`scopes` as one claim (RFC 8693 §4.2). One with a space, as lists may hold, would be two and is left out."""
    return " ".join(sorted(scope for scope in scopes if scope.split() == [scope]))


def user_name(value: str, *, reserved: Collection[str] = ()) -> str:
    """Return `value` if it can name a user: what is stamped on requests and owns things.

    Printable ASCII without a space at either end, whole or not at all: a name that had to be cut, escaped or trimmed
    could end up being somebody else's. `reserved` beginnings belong to other ways of signing in, in any case.
    """
    if not 0 < len(value) <= MAX_USER_CHARS or not (value.isascii() and value.isprintable()) or value != value.strip():
        raise InvalidToken("user")
    lowered = value.lower()
    if any(lowered.startswith(prefix.lower()) for prefix in reserved):
        raise InvalidToken("user")
    return value
