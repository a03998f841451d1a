"""Tokens that a DID issues about itself: a JWT signed with the key that the DID names (DID-JWT)."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable

from store import OnceStore, OnceUnavailable

from .claims import check_audience, check_bearer, check_times, numeric_date, text, user_name
from .did import Method, resolve
from .did_policy import DIDSettings, both_slash_forms
from .interface import Identity, InvalidToken, SignInUnavailable
from .jws import SignedToken, parse
from .proof import Proof
from .strict import encode_base64url

MAX_TOKEN_BYTES = 8 * 1024
MAX_JTI_CHARS = 256

# Absent and "JWT" are what DID libraries send.
ACCEPTED_TYPES = frozenset({"jwt", "did+jwt"})


class DIDVerifier:
    """Verifies the tokens of every DID that may sign in.

    The token decides nothing: the DID says which key it is, the key which algorithm, the settings who may come in.
    """

    def __init__(self, settings: DIDSettings, store: OnceStore, clock: Callable[[], float] = time.time) -> None:
        """`store` is what was used, where tokens are good for one request only."""
        self._settings = settings
        self._store = store
        self._clock = clock
        self._audiences = both_slash_forms(settings.audiences)

    @property
    def ready(self) -> bool:
        """Whether there is a DID that could sign in."""
        return self._settings.possible

    async def verify(self, token: str) -> Identity:
        """Who `token` proves: a DID-JWT, alone or behind its DID and a dot. Raises only `AuthError`."""
        return (await self.prove(*parse_with_did(token))).identity

    async def prove(self, token: SignedToken, did: str | None = None) -> Proof:
        """Verify a parsed token in full. Raises only `AuthError`.

        Args:
            token: One whose `iss` is a DID.
            did: What the caller claims to be beside the token; the token must say the same.
        """
        self._settings.check_login()
        issuer = text(token.claims, "iss")
        if did is not None and issuer != did:
            raise InvalidToken("did_differs")
        if _size(token) > MAX_TOKEN_BYTES:
            raise InvalidToken("too_large")
        method = resolve(issuer, chains=self._settings.chains)
        self._check_header(token, issuer, method)
        if not method.verifies(token.alg, token.signing_input, token.signature):
            raise InvalidToken("signature")
        expires_at = self._check_claims(token, issuer)
        self._settings.admit(method.did)
        user = user_name(method.did)
        if self._settings.once:
            await self._use(token, method.did, until=expires_at + self._settings.leeway)
        identity = Identity(user=user, subject=user, issuer=user, claims=token.claims, scheme="did")
        return Proof(identity=identity, expires_at=expires_at, holds=lambda: True, reusable=not self._settings.once)

    def _check_header(self, token: SignedToken, issuer: str, method: Method) -> None:
        if token.typ is not None and token.typ.lower() not in ACCEPTED_TYPES:
            raise InvalidToken("type")
        if token.kid is not None and token.kid != f"{issuer}#{method.fragment}":
            raise InvalidToken("unknown_kid")

    def _check_claims(self, token: SignedToken, issuer: str) -> float:
        """Check what the DID signed, and return when it ends."""
        claims = token.claims
        if claims.get("sub", issuer) != issuer:
            raise InvalidToken("subject")
        expires_at = check_times(claims, now=self._clock(), leeway=self._settings.leeway)
        check_lifetime(numeric_date(claims, "iat"), expires_at, self._settings.max_lifetime)
        check_audience(claims, self._audiences)
        check_bearer(claims)
        return expires_at

    async def _use(self, token: SignedToken, did: str, *, until: float) -> None:
        """Note that this token was used, by the name its DID gave it: its bytes can be changed, its `jti` cannot."""
        jti = text(token.claims, "jti")
        if len(jti) > MAX_JTI_CHARS:
            raise InvalidToken("claims")
        key = encode_base64url(hashlib.sha256(json.dumps([did, jti]).encode("ascii")).digest())
        try:
            used = await self._store.claim("jti", key, "", until=until)
        except OnceUnavailable as error:
            raise SignInUnavailable from error
        if used is not None:
            raise InvalidToken("replayed")


def parse_with_did(token: str) -> tuple[SignedToken, str | None]:
    """Read a DID-JWT, and the DID that stands before it and a dot, if any."""
    if not token.startswith("did:"):
        return parse(token), None
    did, *segments = token.rsplit(".", 3)
    if len(segments) != 3:
        # Who knows a DID is not yet who it names.
        raise InvalidToken("did_bare")
    return parse(".".join(segments)), did


def check_lifetime(issued_at: float, expires_at: float, longest: float) -> None:
    """Check that something ends after it begins, and soon enough."""
    if not 0 < expires_at - issued_at <= longest:
        raise InvalidToken("lifetime")


def _size(token: SignedToken) -> int:
    return len(token.signing_input) + 1 + (len(token.signature) * 4 + 2) // 3
