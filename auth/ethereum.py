"""What Ethereum accounts are and how they sign: addresses, keccak-256, and the key that a signature gives away.

The libraries come with the extra `wallet` and are imported when the first account is met.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec

from .interface import InvalidToken

_ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141  # SEC 2 §2.4.1
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


@cache
def wallet_extra_installed() -> bool:
    """Whether accounts can be verified here: coincurve and pycryptodome are there. Imports neither."""
    return find_spec("coincurve") is not None and find_spec("Crypto") is not None


def require_wallet_extra() -> None:
    """Raises `InvalidToken` where accounts cannot be verified."""
    if not wallet_extra_installed():
        raise InvalidToken("wallet_extra")


def keccak256(raw: bytes) -> bytes:
    """The hash that Ethereum settled on before SHA-3 was finished."""
    from Crypto.Hash import keccak  # noqa: PLC0415

    return keccak.new(data=raw, digest_bits=256).digest()


def checksummed(address: str) -> str:
    """`0x` and 40 hex digits in the one spelling that carries a checksum (ERC-55)."""
    digits = address[2:].lower()
    checksum = keccak256(digits.encode("ascii")).hex()
    return "0x" + "".join(
        digit.upper() if int(check, 16) > 7 else digit for digit, check in zip(digits, checksum, strict=False)
    )


def read_address(text: str) -> str:
    """An address as a person gives it, checksummed: in lower case, or in mixed case with its checksum right.

    Raises:
        ValueError: It is none, or was mistyped.
    """
    if _ADDRESS.fullmatch(text) is None:
        raise ValueError("not an address")
    canonical = checksummed(text)
    if text not in (canonical, text.lower()):
        raise ValueError("the checksum of the address is wrong")
    return canonical


def signer(digest: bytes, signature: bytes, parity: int) -> str | None:
    """The address of the account that signed `digest`, checksummed; None if no account can have.

    Args:
        digest: 32 bytes.
        signature: r and s, 32 bytes each; s may be high.
        parity: 0 or 1, of the y of the point behind r. The two other values of SEC 1 §4.1.6 never occur in practice.
    """
    from coincurve import PublicKey  # noqa: PLC0415

    try:
        key = PublicKey.from_signature_and_message(signature + bytes([parity]), digest, hasher=None)
    except ValueError:
        return None
    return checksummed("0x" + keccak256(key.format(compressed=False)[1:])[12:].hex())


def personal_message_digest(message: bytes) -> bytes:
    """What a wallet signs when it is asked to sign text (ERC-191, version 0x45)."""
    return keccak256(b"\x19Ethereum Signed Message:\n%d%b" % (len(message), message))


def is_low(s: bytes) -> bool:
    """Whether s is in the half of its range that wallets use (EIP-2): its negative would be a second signature."""
    return int.from_bytes(s, "big") <= _ORDER // 2
