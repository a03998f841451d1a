"""Who is calling: bearer tokens in, verified identities out."""

from .interface import (
    AuthError,
    Identity,
    InsufficientScope,
    InvalidRequest,
    InvalidToken,
    IssuerUnavailable,
    MissingCredentials,
    TokenVerifier,
)

__all__ = [
    "AuthError",
    "Identity",
    "InsufficientScope",
    "InvalidRequest",
    "InvalidToken",
    "IssuerUnavailable",
    "MissingCredentials",
    "TokenVerifier",
]
