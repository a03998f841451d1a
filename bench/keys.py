"""Signing keys and tokens as an issuer would make them, some of them wrong on purpose."""

import base64
import json
import time
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

KID = "bench-1"
LIFETIME = 6 * 3600


class Issuer:
    """One RS256 key of 2048 bits, what is published of it, and tokens signed with it."""

    def __init__(self, *, url: str, audience: str) -> None:
        self.url = url
        self.audience = audience
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def jwks(self) -> str:
        numbers = self._key.public_key().public_numbers()
        n, e = (_base64url(_big_endian(value)) for value in (numbers.n, numbers.e))
        return json.dumps({"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": KID, "n": n, "e": e}]})

    def public_pem(self) -> bytes:
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def token(self, subject: str, *, lifetime: float = LIFETIME, audience: str | None = None) -> str:
        """A token of about the size that identity providers give out."""
        now = int(time.time())
        return self._sign(
            {
                "iss": self.url,
                "aud": audience or self.audience,
                "sub": subject,
                "iat": now - 60,
                "exp": now + int(lifetime),
                "azp": "bench-client-0123456789",
                "scope": "openid profile email",
                "email": f"{subject}@example.com",
            }
        )

    def hostile_tokens(self) -> Mapping[str, str | None]:
        """What a row that checks tokens has to turn away, by what is wrong with it; None is no token at all."""
        good = self.token("mallory")
        return {
            "no token": None,
            "a broken signature": f"{good[:-20]}{'A' if good[-20] != 'A' else 'B'}{good[-19:]}",
            "another key's signature": Issuer(url=self.url, audience=self.audience).token("mallory"),
            "an expired token": self.token("mallory", lifetime=-3600),
            "another audience's token": self.token("mallory", audience="somebody-else"),
        }

    def _sign(self, claims: Mapping[str, Any]) -> str:
        head = {"alg": "RS256", "typ": "JWT", "kid": KID}
        text = ".".join(_base64url(json.dumps(part, separators=(",", ":")).encode()) for part in (head, claims))
        return f"{text}.{_base64url(self._key.sign(text.encode(), padding.PKCS1v15(), SHA256()))}"


def _big_endian(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
