"""What every way of proving who calls has in common: the contract, its result, and its errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A caller whose token was verified in full.

    One `Identity` is shared by every request that brings the same token, so nobody may change it.

    Attributes:
        user: Who owns what this caller makes, and what `X-Attach-User` carries: printable ASCII, whole, and never
            the same for callers of two issuers.
        subject: The issuer's own name for the caller (`sub`).
        issuer: Who vouches for the caller.
        claims: Everything that was signed, read-only.
        scheme: How the caller proved it: "oidc" or "dev".
        scopes: What the issuer allows the bearer to do. Empty where nobody but the caller himself could have said so.
    """

    user: str
    subject: str
    issuer: str
    claims: Mapping[str, Any] = field(repr=False)
    scheme: str
    scopes: frozenset[str] = field(default=frozenset(), repr=False)


class TokenVerifier(Protocol):
    """Who a bearer token stands for."""

    async def verify(self, token: str) -> Identity:
        """Verify `token` in full, or from memory of having done so.

        Raises:
            AuthError: And nothing else, whatever `token` holds.
        """
        ...


class AuthError(Exception):
    """Why a caller was not let in.

    `str()` is one fixed sentence that may be shown to the caller: it holds nothing of the token, of the keys, or of
    an exception. `reason` is a short stable code for logs and tests, and says more than the caller may hear.

    ```
    AuthError
        MissingCredentials   401, a challenge without `error` (RFC 6750 §3.1)
        InvalidRequest       400 invalid_request
        InvalidToken         401 invalid_token
        InsufficientScope    403 insufficient_scope
        IssuerUnavailable    503
    ```
    """

    sentence: ClassVar[str] = "The caller could not be identified."

    def __init__(self, reason: str) -> None:
        super().__init__(SENTENCES.get(reason, self.sentence))
        self.reason = reason


class MissingCredentials(AuthError):
    """No token was sent, or only one of a kind that is not taken here."""

    sentence = "A bearer token is needed."

    def __init__(self, reason: str = "missing") -> None:
        super().__init__(reason)


class InvalidRequest(AuthError):
    """The credentials cannot be read: two of them, or a malformed field."""

    sentence = "The credentials are malformed."


class InvalidToken(AuthError):
    """The token was read and is not accepted."""

    sentence = "The token is not valid."


class InsufficientScope(AuthError):
    """The token is good, but not for this.

    Attributes:
        scope: What would be enough, as a space-separated list (RFC 6750 §3).
    """

    sentence = "The token does not carry the scope that this needs."

    def __init__(self, scope: str) -> None:
        super().__init__("scope")
        self.scope = scope


class IssuerUnavailable(AuthError):
    """Nothing can be said about the token: the issuer's keys cannot be had at the moment.

    Attributes:
        retry_after: Seconds after which asking again makes sense.
    """

    sentence = "The keys of the token's issuer cannot be had at the moment."

    def __init__(self, retry_after: float) -> None:
        super().__init__("issuer_unavailable")
        self.retry_after = retry_after


# No quotation mark and no backslash: these go into `error_description` (RFC 6750 §3).
SENTENCES: Mapping[str, str] = MappingProxyType(
    {
        "audience": "The token is meant for another audience.",
        "bound": "The token is bound to a key that a bearer token cannot show.",
        "conflict": "More than one credential was sent.",
        "did": "Sign-in with a DID is not enabled here.",
        "early": "The token is not valid yet.",
        "expired": "The token has expired.",
        "id_token": "This is an ID token: send the access token that came with it.",
        "issuer": "The issuer of the token is not trusted here.",
        "malformed": "The token is malformed.",
        "scheme": "The Authorization header must be: Bearer, a space, and the token.",
        "signature": "The signature of the token is not valid.",
        "too_large": "The token is too large.",
        "unknown_kid": "The key of the token is not known to its issuer.",
        "user": "The name in the token cannot be used here.",
    }
)
