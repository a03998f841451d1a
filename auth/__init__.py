"""Who is calling: bearer tokens in, verified identities out."""

from .credentials import credential
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
from .issuer import GatewayIssuer, LocalVerifier, SigningKeyError, load_or_create
from .oidc import OIDCSettings, OIDCVerifier
from .proof import Proof, TrustedIssuer
from .verifier import RememberingVerifier, TokenPicker, verify_jwt

__all__ = [
    "AuthError",
    "GatewayIssuer",
    "Identity",
    "InsufficientScope",
    "InvalidRequest",
    "InvalidToken",
    "IssuerUnavailable",
    "LocalVerifier",
    "MissingCredentials",
    "OIDCSettings",
    "OIDCVerifier",
    "Proof",
    "RememberingVerifier",
    "SigningKeyError",
    "TokenPicker",
    "TokenVerifier",
    "TrustedIssuer",
    "credential",
    "load_or_create",
    "verify_jwt",
]
