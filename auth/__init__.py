"""Who is calling: bearer tokens in, verified identities out."""

from .credentials import credential, lone_authorization
from .delegation import AgentScope, Delegation
from .did import Method, resolve
from .did_jwt import DIDVerifier
from .did_policy import DIDLogin, DIDSettings
from .ethereum import wallet_extra_installed
from .exchange import ExchangedIssuer, ExchangeSettings
from .identity_token import IdentitySigner
from .interface import (
    AuthError,
    Identity,
    InsufficientScope,
    InvalidRequest,
    InvalidToken,
    IssuerUnavailable,
    MissingCredentials,
    NotAllowed,
    NotDelegated,
    SignInUnavailable,
    TokenVerifier,
    TooManyAgents,
)
from .issuer import GatewayIssuer, LocalVerifier, issuer_of_pem, load_or_create
from .oidc import OIDCSettings, OIDCVerifier
from .proof import Proof, TrustedIssuer
from .signing_keys import KeyFolder, SigningKeyError
from .verifier import RememberingVerifier, TokenPicker, verify_jwt
from .wallet import SignedIn, WalletTokenVerifier, WalletVerifier

__all__ = [
    "AgentScope",
    "AuthError",
    "DIDLogin",
    "DIDSettings",
    "DIDVerifier",
    "Delegation",
    "ExchangeSettings",
    "ExchangedIssuer",
    "GatewayIssuer",
    "Identity",
    "IdentitySigner",
    "InsufficientScope",
    "InvalidRequest",
    "InvalidToken",
    "IssuerUnavailable",
    "KeyFolder",
    "LocalVerifier",
    "Method",
    "MissingCredentials",
    "NotAllowed",
    "NotDelegated",
    "OIDCSettings",
    "OIDCVerifier",
    "Proof",
    "RememberingVerifier",
    "SignInUnavailable",
    "SignedIn",
    "SigningKeyError",
    "TokenPicker",
    "TokenVerifier",
    "TooManyAgents",
    "TrustedIssuer",
    "WalletTokenVerifier",
    "WalletVerifier",
    "credential",
    "issuer_of_pem",
    "load_or_create",
    "lone_authorization",
    "resolve",
    "verify_jwt",
    "wallet_extra_installed",
]
