"""Base58 in Bitcoin's alphabet (draft-msporny-base58-03 §2), read in bounded time."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGITS: Mapping[str, int] = MappingProxyType({character: value for value, character in enumerate(_ALPHABET)})


def decode_base58(text: str, *, max_chars: int) -> bytes:
    """The bytes that `text` stands for. Every value has one spelling.

    Args:
        max_chars: The work grows with the square of the length, so that longer text is not looked at.

    Raises:
        ValueError: `text` is too long or holds a foreign character.
    """
    if len(text) > max_chars:
        raise ValueError("base58 is too long")
    number = 0
    for character in text:
        digit = _DIGITS.get(character)
        if digit is None:
            raise ValueError("not base58")
        number = number * 58 + digit
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
