"""Public keys as an issuer publishes them (RFC 7517), taken only where they can safely verify a signature."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from .strict import decode_base64url, encode_base64url

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

MIN_RSA_BITS = 2048  # RFC 7518 §3.3
MAX_RSA_BITS = 8192  # One verification grows with the square: beyond this a key is a way to keep us busy.


class Algorithm(NamedTuple):
    """What a signature algorithm needs of its key. Two names of one algorithm are equal."""

    kty: str
    crv: str | None
    name: str


# RFC 7518 §3.1, RFC 8037 §3.1, RFC 8812 §3.2; "Ed25519" is RFC 9864's name for EdDSA over that curve. Asymmetric
# only: accepting HS256 next to RS256 lets anyone sign with the public key (RFC 8725 §2.1).
ALGORITHMS: Mapping[str, Algorithm] = MappingProxyType(
    {
        "RS256": Algorithm("RSA", None, "RS256"),
        "RS384": Algorithm("RSA", None, "RS384"),
        "RS512": Algorithm("RSA", None, "RS512"),
        "PS256": Algorithm("RSA", None, "PS256"),
        "PS384": Algorithm("RSA", None, "PS384"),
        "PS512": Algorithm("RSA", None, "PS512"),
        "ES256": Algorithm("EC", "P-256", "ES256"),
        "ES384": Algorithm("EC", "P-384", "ES384"),
        "ES512": Algorithm("EC", "P-521", "ES512"),
        "ES256K": Algorithm("EC", "secp256k1", "ES256K"),
        "EdDSA": Algorithm("OKP", "Ed25519", "EdDSA"),
        "Ed25519": Algorithm("OKP", "Ed25519", "EdDSA"),
    }
)

_PRIVATE_MEMBERS = frozenset({"d", "dp", "dq", "k", "oth", "p", "q", "qi"})

_CURVES: Mapping[str, tuple[ec.EllipticCurve, int]] = MappingProxyType(
    {
        "P-256": (ec.SECP256R1(), 32),
        "P-384": (ec.SECP384R1(), 48),
        "P-521": (ec.SECP521R1(), 66),
        "secp256k1": (ec.SECP256K1(), 32),
    }
)

# Every encoding, canonical or not, of the Ed25519 points of order 1, 2, 4 and 8. A signature under one of them says
# nothing: with the neutral point the empty one fits every message.
SMALL_ORDER_KEYS: frozenset[bytes] = frozenset(
    bytes.fromhex(point[:62]) + bytes([int(point[62:], 16) | sign])
    for sign in (0x00, 0x80)
    for point in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)


class UnusableKey(ValueError):
    """A key that is not for verifying signatures here. `str()` is a short code for the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyingKey:
    """One public key. Two are equal when they have the same name, the same use and the same public half.

    Attributes:
        kid: The issuer's name for it; None where it has none.
        alg: The only algorithm it may be used with, or None where its type alone decides.
        public: The members of the key that RFC 7638 §3.2 counts, in that order, as canonical text.
        signature_bytes: How long every signature of this key is.
        native: The key in the hands of `cryptography`.
        engines: What `verify_signature` made of the key, by algorithm.
    """

    kid: str | None
    alg: Algorithm | None
    public: tuple[tuple[str, str], ...]
    signature_bytes: int
    native: PublicKey = field(compare=False, repr=False)
    engines: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def fits(self, alg: str) -> bool:
        """Whether a signature made with `alg` could be this key's."""
        wanted = ALGORITHMS.get(alg)
        if wanted is None or (self.alg is not None and self.alg != wanted):
            return False
        public = dict(self.public)
        return (wanted.kty, wanted.crv) == (public["kty"], public.get("crv"))

    def thumbprint(self) -> str:
        """The key's name after its content (RFC 7638, SHA-256)."""
        members = ",".join(f'"{name}":"{value}"' for name, value in self.public)
        return encode_base64url(hashlib.sha256(f"{{{members}}}".encode("ascii")).digest())


def verifying_key(native: PublicKey, *, kid: str | None = None, alg: Algorithm | None = None) -> VerifyingKey:
    """Take a public key, wherever it came from, after the checks that hold for every key.

    Raises:
        UnusableKey: It is too weak, or `alg` is not an algorithm for it.
    """
    public, signature_bytes = _public_members(native)
    key = VerifyingKey(kid=kid, alg=alg, public=public, signature_bytes=signature_bytes, native=native)
    if alg is not None and not key.fits(alg.name):
        raise UnusableKey("algorithm")
    return key


def read_jwk(jwk: Mapping[str, Any]) -> VerifyingKey:
    """Take a JWK (RFC 7517 §4) as a verifying key.

    Raises:
        UnusableKey: It is of another kind, meant for something else, too weak, malformed, or not public any more.
    """
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        raise UnusableKey("private")
    if jwk.get("use", "sig") != "sig":
        raise UnusableKey("use")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise UnusableKey("key_ops")
    kid, alg = jwk.get("kid"), jwk.get("alg")
    if not isinstance(kid, str | None):
        raise UnusableKey("kid")
    if alg is not None and (not isinstance(alg, str) or alg not in ALGORITHMS):
        raise UnusableKey("algorithm")
    try:
        native = _read_native(jwk)
    except UnusableKey:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, UnsupportedAlgorithm) as error:
        raise UnusableKey("malformed") from error
    return verifying_key(native, kid=kid, alg=ALGORITHMS[alg] if alg is not None else None)


def _read_native(jwk: Mapping[str, Any]) -> PublicKey:
    match jwk["kty"]:
        case "RSA":
            # Some issuers write a leading zero octet (RFC 7518 §6.3.1.1), which changes nothing in the number.
            n, e = (int.from_bytes(decode_base64url(jwk[name]), "big") for name in ("n", "e"))
            if not MIN_RSA_BITS <= n.bit_length() <= MAX_RSA_BITS or e.bit_length() > 32:
                raise UnusableKey("size")
            return rsa.RSAPublicNumbers(e, n).public_key()
        case "EC" if jwk["crv"] in _CURVES:
            curve, size = _CURVES[jwk["crv"]]
            x, y = (decode_base64url(jwk[name]) for name in ("x", "y"))
            if (len(x), len(y)) != (size, size):  # RFC 7518 §6.2.1.2: the full size, zeros included
                raise UnusableKey("size")
            return ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve).public_key()
        case "OKP" if jwk["crv"] == "Ed25519":
            return ed25519.Ed25519PublicKey.from_public_bytes(decode_base64url(jwk["x"]))
    raise UnusableKey("type")


def _public_members(native: PublicKey) -> tuple[tuple[tuple[str, str], ...], int]:
    """The members that RFC 7638 §3.2 counts, in its order, and the length of a signature in bytes."""
    if isinstance(native, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= native.key_size <= MAX_RSA_BITS:
            raise UnusableKey("size")
        rsa_numbers = native.public_numbers()
        e, n = (_encode_integer(number, (number.bit_length() + 7) // 8) for number in (rsa_numbers.e, rsa_numbers.n))
        return (("e", e), ("kty", "RSA"), ("n", n)), (native.key_size + 7) // 8
    if isinstance(native, ed25519.Ed25519PublicKey):
        raw = native.public_bytes_raw()
        if raw in SMALL_ORDER_KEYS:
            raise UnusableKey("small_order")
        return (("crv", "Ed25519"), ("kty", "OKP"), ("x", encode_base64url(raw))), 64
    for crv, (curve, size) in _CURVES.items():
        if native.curve.name == curve.name:
            ec_numbers = native.public_numbers()
            x, y = (_encode_integer(number, size) for number in (ec_numbers.x, ec_numbers.y))
            return (("crv", crv), ("kty", "EC"), ("x", x), ("y", y)), 2 * size
    raise UnusableKey("type")


def _encode_integer(number: int, size: int) -> str:
    return encode_base64url(number.to_bytes(size, "big"))
