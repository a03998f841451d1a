"""The gateway's own signature: its key, the tokens it signs, and who believes them."""

from __future__ import annotations

import fcntl
import hmac
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .claims import check_audience, check_bearer, check_times, text, user_name
from .interface import Identity, InvalidToken
from .jwk import verifying_key
from .jws import SignedToken, parse, verify_signature
from .proof import Proof
from .strict import encode_base64url

KEY_FILE = "signing-key.pem"

# Every kind of token we sign has its own type and is refused in another's place (RFC 8725 §3.11).
DEV_TYPE = "attach-dev+jwt"
DEV_ISSUER = "attach-dev"
DEV_AUDIENCE = "attach-dev-gateway"
DEV_TOKEN_SECONDS = 12 * 3600.0


class SigningKeyError(Exception):
    """The gateway's own key cannot be had. `str()` says what is wrong with which file, and the mend."""


class GatewayIssuer:
    """Signs tokens in the gateway's own name, with an Ed25519 key that never leaves its file."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.verifying_key = verifying_key(key.public_key())
        self.kid = self.verifying_key.thumbprint()

    def sign(self, typ: str, claims: Mapping[str, Any]) -> str:
        """A compact JWS over `claims`, of the kind `typ`."""
        header = {"alg": "EdDSA", "kid": self.kid, "typ": typ}
        signing_input = f"{_segment(header)}.{_segment(claims)}"
        return f"{signing_input}.{encode_base64url(self._key.sign(signing_input.encode('ascii')))}"

    def check(self, token: SignedToken, typ: str) -> None:
        """Check that this gateway signed `token`, as one of the kind `typ`. What it says is not looked at.

        Raises:
            InvalidToken: It did not.
        """
        if token.typ != typ:
            raise InvalidToken("type")
        if token.kid != self.kid:
            raise InvalidToken("unknown_kid")
        if not verify_signature(token.alg, self.verifying_key, token.signing_input, token.signature):
            raise InvalidToken("signature")

    def secret(self, purpose: str) -> bytes:
        """32 bytes that only the holders of this key know, others for every purpose."""
        return hmac.digest(self._key.private_bytes_raw(), f"attach {purpose}".encode(), "sha256")

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
        return Proof(identity=identity, expires_at=expires_at, holds=lambda: True)

    async def warm(self) -> None:
        """Nothing is missing."""

    async def check(self) -> None:
        """Nothing can be missing."""

    async def aclose(self) -> None:
        """Nothing runs."""


def load_or_create(directory: Path) -> GatewayIssuer:
    """The gateway that `directory` belongs to, made on the first call: a private directory, a private key file.

    Processes that start together end up with the same key.

    Raises:
        SigningKeyError: The key is damaged, readable by others, or cannot be written.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _exclusively(directory):
            path = directory / KEY_FILE
            if not path.exists():
                _write_key(path)
            return GatewayIssuer(_read_key(path))
    except OSError as error:
        raise SigningKeyError(f"{directory} cannot hold the gateway's key: {error.strerror}") from error


@contextmanager
def _exclusively(directory: Path) -> Iterator[None]:
    """One process at a time. The lock is on the directory itself and goes with its process."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write_key(path: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    descriptor, temporary = tempfile.mkstemp(prefix=f".{KEY_FILE}.", dir=path.parent)  # 0600 from the start
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise


def _read_key(path: Path) -> Ed25519PrivateKey:
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise SigningKeyError(f"{path} can be read by others (mode {mode:o}): run chmod 600 {path}")
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise SigningKeyError(f"{path} is not a private key: restore it, or remove it to have a new one") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningKeyError(f"{path} is not an Ed25519 key: restore it, or remove it to have a new one")
    return key


def _segment(members: Mapping[str, Any]) -> str:
    return encode_base64url(json.dumps(dict(members), separators=(",", ":"), ensure_ascii=False).encode("utf-8"))
