"""The gateway's own signature: its key, the tokens it signs, and who believes them."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .claims import check_audience, check_bearer, check_times, text, user_name
from .interface import Identity, InvalidToken
from .jwk import VerifyingKey
from .jws import SignedToken, parse, verify_signature
from .proof import Proof
from .signing_keys import KeyFolder, SigningKeys, keys_of_pem
from .strict import encode_base64url

# Every kind of token we sign has its own type and is refused in another's place (RFC 8725 §3.11).
DEV_TYPE = "attach-dev+jwt"
DEV_ISSUER = "attach-dev"
DEV_AUDIENCE = "attach-dev-gateway"
DEV_TOKEN_SECONDS = 12 * 3600.0


class GatewayIssuer:
    """Signs tokens in the gateway's own name with an Ed25519 key, and knows those that did so before it.

    Args:
        key: What signs.
        current: The keys as they are now, where they can change while the gateway runs. Asked on every use.
    """

    def __init__(self, key: Ed25519PrivateKey, *, current: Callable[[], SigningKeys] | None = None) -> None:
        fixed = SigningKeys(key=key)
        self._current = current or (lambda: fixed)

    @property
    def verifying_key(self) -> VerifyingKey:
        return self._current().verifying_key

    @property
    def kid(self) -> str:
        return self._current().kid

    def find(self, kid: str | None) -> VerifyingKey | None:
        """The key of that name, if it is one that signs or signed until lately."""
        return self._current().by_kid.get(kid) if kid is not None else None

    def jwks(self) -> dict[str, Any]:
        """The JWK Set to publish (RFC 7517 §5): the key that signs, then those that did until lately."""
        return {"keys": [_published(kid, key) for kid, key in self._current().by_kid.items()]}

    def sign(self, typ: str, claims: Mapping[str, Any]) -> str:
        """A compact JWS over `claims`, of the kind `typ`."""
        keys = self._current()
        header = {"alg": "EdDSA", "kid": keys.kid, "typ": typ}
        signing_input = f"{_segment(header)}.{_segment(claims)}"
        return f"{signing_input}.{encode_base64url(keys.key.sign(signing_input.encode('ascii')))}"

    def check(self, token: SignedToken, typ: str) -> None:
        """Check that this gateway signed `token`, as one of the kind `typ`. What it says is not looked at.

        Raises:
            InvalidToken: It did not.
        """
        if token.typ != typ:
            raise InvalidToken("type")
        key = self.find(token.kid)
        if key is None:
            raise InvalidToken("unknown_kid")
        if not verify_signature(token.alg, key, token.signing_input, token.signature):
            raise InvalidToken("signature")

    def secret(self, purpose: str) -> bytes:
        """32 bytes that only the holders of this key know, others for every purpose."""
        return hmac.digest(self._current().key.private_bytes_raw(), f"attach {purpose}".encode(), "sha256")

    def dev_token(self, user: str, *, now: float, lifetime: float = DEV_TOKEN_SECONDS) -> str:
        """A token with which a developer is `user` at a gateway in dev mode, for `lifetime` seconds.

        Raises:
            InvalidToken: `user` cannot be the name of a user.
        """
        claims = {
            "iss": DEV_ISSUER,
            "sub": user_name(user, reserved=("did:",)),
            "aud": DEV_AUDIENCE,
            "iat": int(now),
            "exp": int(now + lifetime),
        }
        return self.sign(DEV_TYPE, claims)


class LocalVerifier:
    """Verifies the dev tokens of this gateway. For dev mode only: whoever can read the key file can be anybody."""

    def __init__(self, issuer: GatewayIssuer, clock: Callable[[], float] = time.time) -> None:
        self._issuer = issuer
        self._clock = clock

    @property
    def names(self) -> frozenset[str]:
        return frozenset({DEV_ISSUER})

    @property
    def authorization_server(self) -> None:
        return None

    @property
    def ready(self) -> bool:
        return True

    async def verify(self, token: str) -> Identity:
        return (await self.prove(parse(token))).identity

    async def prove(self, token: SignedToken) -> Proof:
        self._issuer.check(token, DEV_TYPE)
        if token.claims.get("iss") != DEV_ISSUER:
            raise InvalidToken("issuer")
        expires_at = check_times(token.claims, now=self._clock(), leeway=0.0)
        check_audience(token.claims, {DEV_AUDIENCE})
        check_bearer(token.claims)
        user = user_name(text(token.claims, "sub"), reserved=("did:",))
        identity = Identity(user=user, subject=user, issuer=DEV_ISSUER, claims=token.claims, scheme="dev")
        return Proof(identity=identity, expires_at=expires_at, holds=lambda: self._issuer.find(token.kid) is not None)

    async def warm(self) -> None:
        """Nothing is missing."""

    async def check(self) -> None:
        """Nothing can be missing."""

    async def aclose(self) -> None:
        """Nothing runs."""


def load_or_create(directory: Path) -> GatewayIssuer:
    """The gateway that `directory` belongs to, its key made on the first call: a private directory, a private key file.

    Processes that start together end up with the same key, and follow when it is rotated.

    Raises:
        SigningKeyError: The key is damaged, readable by others, or cannot be written.
    """
    folder = KeyFolder(directory)
    return GatewayIssuer(folder.keys().key, current=folder.keys)


def issuer_of_pem(text: str) -> GatewayIssuer:
    """A gateway whose Ed25519 keys somebody else keeps: the first PEM signs, further ones are still believed.

    Raises:
        SigningKeyError: There is none, or one is something else.
    """
    keys = keys_of_pem(text)
    return GatewayIssuer(keys.key, current=lambda: keys)


def _published(kid: str, key: VerifyingKey) -> dict[str, str]:
    return {**dict(key.public), "alg": "EdDSA", "kid": kid, "use": "sig"}


def _segment(members: Mapping[str, Any]) -> str:
    return encode_base64url(json.dumps(dict(members), separators=(",", ":"), ensure_ascii=False).encode("utf-8"))
