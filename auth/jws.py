"""Signed tokens: one strict reading of the compact form (RFC 7515 §7.1), and one place that verifies a signature."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from jose import jwk as jose_jwk

from .interface import InvalidToken
from .jwk import ALGORITHMS, VerifyingKey
from .strict import decode_base64url, decode_json_object

logger = logging.getLogger(__name__)

MAX_TOKEN_BYTES = 16 * 1024

# Each of these would change what was signed, or let the token bring its own key (RFC 7515 §4.1, RFC 7797 §3).
REFUSED_MEMBERS = frozenset({"b64", "crit", "cty", "enc", "jku", "jwk", "x5c", "x5u", "zip"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Compact:
    """The parts of a compact JWS, decoded, nothing about them believed yet."""

    header: Mapping[str, Any]
    payload: bytes
    signing_input: bytes
    signature: bytes

    @property
    def alg(self) -> str:
        alg: str = self.header["alg"]
        return alg

    @property
    def kid(self) -> str | None:
        return self.header.get("kid")

    @property
    def typ(self) -> str | None:
        return self.header.get("typ")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedToken(Compact):
    """A compact JWS whose payload is a JSON object: a JWT (RFC 7519 §7.2), its signature not verified yet."""

    claims: Mapping[str, Any]


def parse(token: str, *, max_bytes: int = MAX_TOKEN_BYTES) -> SignedToken:
    """Read a JWT. Raises `InvalidToken` for whatever is not, to the letter, one."""
    compact = parse_compact(token, max_bytes=max_bytes)
    try:
        claims = decode_json_object(compact.payload)
    except ValueError as error:
        raise InvalidToken("malformed") from error
    return SignedToken(
        header=compact.header,
        payload=compact.payload,
        signing_input=compact.signing_input,
        signature=compact.signature,
        claims=MappingProxyType(claims),
    )


def parse_compact(token: str, *, max_bytes: int = MAX_TOKEN_BYTES) -> Compact:
    """Read a compact JWS with any payload. Raises `InvalidToken`."""
    if len(token) > max_bytes:
        raise InvalidToken("too_large")
    segments = token.split(".")
    if len(segments) != 3:
        raise InvalidToken("opaque")
    try:
        header = decode_json_object(decode_base64url(segments[0]))
        payload, signature = decode_base64url(segments[1]), decode_base64url(segments[2])
    except ValueError as error:
        raise InvalidToken("malformed") from error
    _check_header(header)
    signing_input = token[: token.rindex(".")].encode("ascii")
    return Compact(header=header, payload=payload, signing_input=signing_input, signature=signature)


def verify_signature(alg: str, key: VerifyingKey, signing_input: bytes, signature: bytes) -> bool:
    """Whether `signature` over `signing_input` was made with `alg` and the private half of `key`.

    The only place that knows which library verifies what: python-jose RS*, ES256, ES384 and ES512 (it has no others),
    `cryptography` EdDSA, PS* and ES256K. False, never an exception, for whatever is wrong.
    """
    if not key.fits(alg) or len(signature) != key.signature_bytes:
        return False
    try:
        return _ENGINES[ALGORITHMS[alg].name](alg, key, signing_input, signature)
    except InvalidSignature:
        return False
    except Exception:
        # python-jose promises no set of exceptions, and a signature that breaks a library is no signature.
        logger.exception("jws.engine_failed", extra={"alg": alg})
        return False


def _check_header(header: Mapping[str, Any]) -> None:
    if not isinstance(header.get("alg"), str):
        raise InvalidToken("header")
    if not isinstance(header.get("kid", ""), str) or not isinstance(header.get("typ", ""), str):
        raise InvalidToken("header")
    if not REFUSED_MEMBERS.isdisjoint(header):
        raise InvalidToken("header")


def _verify_with_jose(alg: str, key: VerifyingKey, signing_input: bytes, signature: bytes) -> bool:
    engine = key.engines.get(alg)
    if engine is None:
        # A JWK and one named algorithm, never PEM, DER or text: python-jose would take those as an HMAC secret too.
        engine = key.engines[alg] = jose_jwk.construct(dict(key.public), alg)
    return engine.verify(signing_input, signature) is True


def _verify_eddsa(alg: str, key: VerifyingKey, signing_input: bytes, signature: bytes) -> bool:
    cast(ed25519.Ed25519PublicKey, key.native).verify(signature, signing_input)
    return True


def _verify_secp256k1(alg: str, key: VerifyingKey, signing_input: bytes, signature: bytes) -> bool:
    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
    native = cast(ec.EllipticCurvePublicKey, key.native)
    native.verify(encode_dss_signature(r, s), signing_input, ec.ECDSA(hashes.SHA256()))
    return True


def _verify_pss(alg: str, key: VerifyingKey, signing_input: bytes, signature: bytes) -> bool:
    digest = _PSS_DIGESTS[alg]
    # RFC 7518 §3.5: the salt is as long as the digest, and both use the same hash.
    scheme = padding.PSS(mgf=padding.MGF1(digest), salt_length=digest.digest_size)
    cast(rsa.RSAPublicKey, key.native).verify(signature, signing_input, scheme, digest)
    return True


_PSS_DIGESTS: Mapping[str, hashes.HashAlgorithm] = MappingProxyType(
    {"PS256": hashes.SHA256(), "PS384": hashes.SHA384(), "PS512": hashes.SHA512()}
)

_ENGINES: Mapping[str, Callable[[str, VerifyingKey, bytes, bytes], bool]] = MappingProxyType(
    {
        "RS256": _verify_with_jose,
        "RS384": _verify_with_jose,
        "RS512": _verify_with_jose,
        "ES256": _verify_with_jose,
        "ES384": _verify_with_jose,
        "ES512": _verify_with_jose,
        "ES256K": _verify_secp256k1,
        "EdDSA": _verify_eddsa,
        "PS256": _verify_pss,
        "PS384": _verify_pss,
        "PS512": _verify_pss,
    }
)
