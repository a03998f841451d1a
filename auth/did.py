"""What a DID says by itself: the key or the account behind it. Nothing is fetched."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from .base58 import decode_base58
from .ethereum import read_address, require_wallet_extra, signer
from .interface import InvalidToken
from .jwk import PublicKey, UnusableKey, VerifyingKey, read_jwk, verifying_key
from .jws import verify_signature
from .strict import decode_base64url, decode_json_object

MAX_DID_CHARS = 2048

# The longest multibase text that is worth decoding: an RSA key of 4096 bits, to be refused by its name.
_MAX_MULTIBASE_CHARS = 760
_ED25519_PRIME = 2**255 - 19


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyMethod:
    """The one verification method of a did:key or did:jwk.

    Attributes:
        did: The DID in its one spelling.
        fragment: Its name within the DID.
        key: Says by its type which algorithm its signatures have.
    """

    did: str
    fragment: str
    key: VerifyingKey

    def verifies(self, alg: str, signing_input: bytes, signature: bytes) -> bool:
        """Whether this is a signature of the DID's key, made with the algorithm of that key."""
        return verify_signature(alg, self.key, signing_input, signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountMethod:
    """The one verification method of a did:pkh: an account, whose key shows only in its signatures.

    Attributes:
        did: The DID with the address in its checksummed spelling.
        fragment: Its name within the DID.
        address: The account, checksummed.
    """

    did: str
    fragment: str
    address: str

    def verifies(self, alg: str, signing_input: bytes, signature: bytes) -> bool:
        """Whether this is a signature of the account: ES256K-R, or ES256K, which does not say which of two keys it was.

        A high s is taken, as RFC 8812 §3.2 has no rule against it.
        """
        if alg == "ES256K-R" and len(signature) == 65 and signature[64] in (0, 1):
            parities: tuple[int, ...] = (signature[64],)
        elif alg == "ES256K" and len(signature) == 64:
            parities = (0, 1)
        else:
            return False
        digest = hashlib.sha256(signing_input).digest()
        return any(signer(digest, signature[:64], parity) == self.address for parity in parities)


Method = KeyMethod | AccountMethod


def resolve(did: str, *, chains: Collection[int]) -> Method:
    """The verification method of `did`, which must be a DID and nothing behind it.

    Args:
        chains: The chain ids whose accounts are taken: one wallet is another DID on every chain.

    Raises:
        InvalidToken: It is malformed, of a method that is not taken, or has a key that cannot sign here. The sentence
            says which.
    """
    if len(did) > MAX_DID_CHARS or not did.isascii():
        raise InvalidToken("did_malformed")
    scheme, _, rest = did.partition(":")
    method, _, identifier = rest.partition(":")
    if scheme != "did":
        raise InvalidToken("did_malformed")
    match method:
        case "key":
            return _resolve_key(did, identifier)
        case "jwk":
            return _resolve_jwk(did, identifier)
        case "pkh":
            return _resolve_pkh(identifier, chains)
        case "web":
            raise InvalidToken("did_web")
    raise InvalidToken("did_method")


class _KeyType(NamedTuple):
    """A kind of key with a multicodec code: how it is read, or why it is refused."""

    size: int
    read: Callable[[bytes], PublicKey] | None = None
    refusal: str = "did_key_type"


def _read_ed25519(raw: bytes) -> PublicKey:
    if int.from_bytes(raw, "little") & (2**255 - 1) >= _ED25519_PRIME:
        raise ValueError("a second spelling of a point")  # RFC 8032 §5.1.3
    return ed25519.Ed25519PublicKey.from_public_bytes(raw)


def _read_point(curve: ec.EllipticCurve, raw: bytes) -> PublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(curve, raw)


# The multicodec table's codes for public keys. The sizes are those of compressed points: the same key in another form
# would be a second DID.
_KEY_TYPES: Mapping[int, _KeyType] = MappingProxyType(
    {
        0xED: _KeyType(32, _read_ed25519),
        0xE7: _KeyType(33, partial(_read_point, ec.SECP256K1())),
        0x1200: _KeyType(33, partial(_read_point, ec.SECP256R1())),
        0x1201: _KeyType(49, partial(_read_point, ec.SECP384R1())),
        0x1202: _KeyType(67, partial(_read_point, ec.SECP521R1())),
        0xEC: _KeyType(32, refusal="did_key_agreement"),  # X25519
        0x1205: _KeyType(0, refusal="did_rsa"),
    }
)


def _resolve_key(did: str, multibase: str) -> KeyMethod:
    """did:key v0.9, in the one encoding that its creation algorithm makes: base58btc."""
    if not multibase.startswith("z"):
        raise InvalidToken("did_malformed")
    try:
        code, raw = _read_varint(decode_base58(multibase[1:], max_chars=_MAX_MULTIBASE_CHARS))
        key_type = _KEY_TYPES.get(code, _KeyType(0))
        if key_type.read is None:
            raise InvalidToken(key_type.refusal)
        if len(raw) != key_type.size:
            raise ValueError("a key of the wrong length")
        key = verifying_key(key_type.read(raw))
    except ValueError as error:
        raise _refusal(error) from error
    return KeyMethod(did=did, fragment=multibase, key=key)


def _read_varint(raw: bytes) -> tuple[int, bytes]:
    """An unsigned varint (multiformats) in its shortest form, and what follows it."""
    value = 0
    for position, byte in enumerate(raw[:9]):
        value |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            if byte == 0 and position > 0:
                raise ValueError("a varint that could be shorter")
            return value, raw[position + 1 :]
    raise ValueError("a varint without an end")


def _resolve_jwk(did: str, encoded: str) -> KeyMethod:
    try:
        key = read_jwk(decode_json_object(decode_base64url(encoded)))
    except ValueError as error:
        raise _refusal(error) from error
    if dict(key.public)["kty"] == "RSA":
        raise InvalidToken("did_rsa")
    return KeyMethod(did=did, fragment="0", key=key)


def _resolve_pkh(account: str, chains: Collection[int]) -> AccountMethod:
    """An account id (CAIP-10) of the namespace eip155."""
    namespace, _, rest = account.partition(":")
    reference, _, address = rest.partition(":")
    if namespace != "eip155":
        raise InvalidToken("did_namespace")
    if not reference.isdigit() or len(reference) > 32 or str(int(reference)) != reference:
        raise InvalidToken("did_malformed")
    if int(reference) not in chains:
        raise InvalidToken("did_chain")
    require_wallet_extra()
    try:
        address = read_address(address)
    except ValueError as error:
        raise InvalidToken("did_malformed") from error
    return AccountMethod(did=account_did(int(reference), address), fragment="blockchainAccountId", address=address)


def account_did(chain: int, address: str) -> str:
    """The DID of an account with that checksummed address."""
    return f"did:pkh:eip155:{chain}:{address}"


def _refusal(error: ValueError) -> InvalidToken:
    if isinstance(error, UnusableKey):
        match str(error):
            case "private" | "small_order":
                return InvalidToken(f"did_{error}")
            case "type" | "use" | "key_ops" | "algorithm":
                return InvalidToken("did_key_type")
    return InvalidToken("did_malformed")
