"""People without an issuer: keys whose DIDs name them, accounts with wallets, and what they sign."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from coincurve import PrivateKey as SecretKey
from Crypto.Hash import keccak
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.issuer import IssuerKey, b64, compact, make_key

VECTORS = Path(__file__).parents[2] / "shared" / "vectors"
AUDIENCE = "https://gateway.test"
DOMAIN = "gateway.test"

KEY_CODES = {
    "EdDSA": bytes.fromhex("ed01"),
    "ES256K": bytes.fromhex("e701"),
    "ES256": bytes.fromhex("8024"),
    "ES384": bytes.fromhex("8124"),
    "ES512": bytes.fromhex("8224"),
}
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def base58(raw: bytes) -> str:
    number, text = int.from_bytes(raw, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = _ALPHABET[digit] + text
    return "1" * (len(raw) - len(raw.lstrip(b"\0"))) + text


def did_key(code: bytes, raw: bytes) -> str:
    return f"did:key:z{base58(code + raw)}"


def did_jwk(jwk: Mapping[str, Any] | bytes) -> str:
    return "did:jwk:" + b64(jwk if isinstance(jwk, bytes) else json.dumps(jwk).encode())


def public_bytes(key: IssuerKey) -> bytes:
    """The public half as did:key has it."""
    public = key.private.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        return public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody who signs in with a DID of their own.

    Attributes:
        did: As it stands in their tokens.
        name: The same in its one spelling.
        fragment: The name of their key within the DID.
        sign: Signs a signing input with the algorithm `alg`.
    """

    did: str
    name: str
    fragment: str
    alg: str
    sign: Callable[[bytes], bytes]

    def claims(self, *, clock: Callable[[], float] = time.time, **changes: Any) -> dict[str, Any]:
        """The claims of a good token but for `changes`; a change to None leaves the claim out."""
        now = int(clock())
        members = {"iss": self.did, "aud": AUDIENCE, "iat": now, "exp": now + 600, **changes}
        return {name: value for name, value in members.items() if value is not None}

    def token(
        self,
        *,
        header: Mapping[str, Any] | None = None,
        without: Collection[str] = (),
        clock: Callable[[], float] = time.time,
        sign: Callable[[bytes], bytes] | None = None,
        **claims: Any,
    ) -> str:
        """A token, good for ten minutes but for what is changed; a header member set to None is left out."""
        named = {"alg": self.alg, "typ": "JWT", **(header or {})}
        members = self.claims(clock=clock, **claims)
        return compact(
            {name: value for name, value in named.items() if value is not None},
            {name: value for name, value in members.items() if name not in without},
            sign or self.sign,
        )


@cache
def person(alg: str, method: str = "key", fresh: int = 0) -> Person:
    """Somebody with a did:key or did:jwk of the type that signs with `alg`; the same for the same arguments."""
    key = make_key(alg, fresh=(6000 if method == "jwk" else 5000) + fresh)
    if method == "jwk":
        members = key.jwk(kid=None, alg=None, use=None)
        return Person(did=did_jwk(members), name=did_jwk(members), fragment="0", alg=alg, sign=key.sign)
    did = did_key(KEY_CODES[alg], public_bytes(key))
    return Person(did=did, name=did, fragment=did.removeprefix("did:key:"), alg=alg, sign=key.sign)


class Account:
    """An Ethereum account in the hands of a wallet."""

    def __init__(self, secret: bytes) -> None:
        self._key = SecretKey(secret)
        self.address = checksummed(keccak256(self._key.public_key.format(compressed=False)[1:])[12:].hex())
        self.did = f"did:pkh:eip155:1:{self.address}"

    def sign_digest(self, digest: bytes) -> bytes:
        """r, s and the parity, 65 bytes; s is low, as always."""
        return self._key.sign_recoverable(digest, hasher=None)

    def personal_sign(self, message: bytes) -> bytes:
        """What a wallet answers when a page asks for a signature: 65 bytes, the last of them 27 or 28."""
        signature = self.sign_digest(keccak256(b"\x19Ethereum Signed Message:\n%d%b" % (len(message), message)))
        return signature[:64] + bytes([signature[64] + 27])

    def message(self, nonce: str, *, clock: Callable[[], float] = time.time, **changes: str | None) -> bytes:
        """A message that signs in for ten minutes, but for `changes` to its lines; None leaves a line out."""
        now = clock()
        parts = {
            "domain": DOMAIN,
            "address": self.address,
            "statement": "Let me in.",
            "uri": AUDIENCE,
            "version": "1",
            "chain": "1",
            "issued": date_time(now),
            "expires": date_time(now + 600),
            "rest": "",
            **changes,
        }
        statement = f"{parts['statement']}\n" if parts["statement"] is not None else ""
        expires = f"\nExpiration Time: {parts['expires']}" if parts["expires"] is not None else ""
        return (
            f"{parts['domain']} wants you to sign in with your Ethereum account:\n{parts['address']}\n\n{statement}\n"
            f"URI: {parts['uri']}\nVersion: {parts['version']}\nChain ID: {parts['chain']}\nNonce: {nonce}\n"
            f"Issued At: {parts['issued']}{expires}{parts['rest']}"
        ).encode()

    def bearer(self, nonce: str, *, clock: Callable[[], float] = time.time, **changes: str | None) -> str:
        message = self.message(nonce, clock=clock, **changes)
        return wallet_bearer(message, self.personal_sign(message))

    def person(self, alg: str = "ES256K-R", *, did: str | None = None) -> Person:
        """The account as somebody whose program signs JWTs."""

        def sign(signing_input: bytes) -> bytes:
            signature = self.sign_digest(hashlib.sha256(signing_input).digest())
            return signature if alg == "ES256K-R" else signature[:64]

        return Person(did=did or self.did, name=self.did, fragment="blockchainAccountId", alg=alg, sign=sign)


@cache
def account(number: int = 1) -> Account:
    return Account(hashlib.sha256(b"account %d" % number).digest())


def wallet_bearer(message: bytes, signature: bytes) -> str:
    return f"siwe.{b64(message)}.{b64(signature)}"


def date_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def keccak256(raw: bytes) -> bytes:
    return keccak.new(data=raw, digest_bits=256).digest()


def checksummed(digits: str) -> str:
    check = keccak256(digits.encode()).hex()
    return "0x" + "".join(digit.upper() if check[place] in "89abcdef" else digit for place, digit in enumerate(digits))


def negated(signature: bytes) -> bytes:
    """The other signature of the same message: r and n - s."""
    s = _ORDER - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes(byte ^ 1 for byte in signature[64:])
