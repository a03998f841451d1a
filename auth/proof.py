"""What a way of signing in owes to the parts that pick it and that remember its verdicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from .interface import Identity
from .jws import SignedToken


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A verified identity, and for how long the verification may be relied on without doing it again.

    Attributes:
        identity: Who the token proves.
        expires_at: When the token itself ends, in seconds since the epoch, without leeway.
        holds: Whether what the token was verified with still stands (its key has not left the issuer's set).
            Asked on every request, so it costs less than a microsecond and never waits.
        reusable: Whether the token may come again; otherwise the verdict is for one request only.
    """

    identity: Identity
    expires_at: float
    holds: Callable[[], bool] = field(repr=False)
    reusable: bool = True


class TrustedIssuer(Protocol):
    """One issuer whose tokens are accepted here: an OIDC provider, or the gateway itself."""

    @property
    def names(self) -> frozenset[str]:
        """Every `iss` to bring here. That a name leads here does not yet mean that a token with it is accepted."""
        ...

    @property
    def authorization_server(self) -> str | None:
        """Its name as clients look it up to get a token there (RFC 8414 §3); None where nobody can."""
        ...

    @property
    def ready(self) -> bool:
        """Whether a token could be verified now. Asking starts what is missing, without waiting for it."""
        ...

    async def prove(self, token: SignedToken) -> Proof:
        """Verify a parsed token in full. Raises only `AuthError`."""
        ...

    async def warm(self) -> None:
        """Start to load what verifying needs, and return at once. Never raises."""
        ...

    async def check(self) -> None:
        """Wait until a token could be verified. Raises `IssuerUnavailable`."""
        ...

    async def aclose(self) -> None:
        """End every task this issuer started."""
        ...
