"""Base64url and JSON as signed text needs them: one reading, or none.

Parsers that forgive let two programs read two things in the same signed bytes (RFC 8725 §2.4, §3.3). Everything here
raises `ValueError` and nothing else.
"""

from __future__ import annotations

import base64
import json
import math
import re
from typing import Any

MAX_DEPTH = 32
MAX_CONTAINERS = 2000
_SURROGATE = re.compile(r"\\u[dD][89abAB]|\\u[dD][c-fC-F]")


def decode_base64url(text: str) -> bytes:
    """The bytes of unpadded base64url, in its one canonical spelling (RFC 7515 §2, RFC 4648 §3.5)."""
    decoded = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encode_base64url(decoded) != text:
        # The decoder skips foreign characters and ignores trailing bits: only what it would write itself counts.
        raise ValueError("base64url is not canonical")
    return decoded


def encode_base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def decode_json_object(raw: bytes) -> dict[str, Any]:
    """One JSON object in UTF-8 (RFC 8259): no member twice, finite numbers, whole characters, bounded nesting."""
    text = raw.decode("utf-8")
    if text.count("{") + text.count("[") > MAX_CONTAINERS:
        raise ValueError("too many containers")
    try:
        value = _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("not an object")
    if not _is_shallow(value):
        raise ValueError("nested too deeply")
    if _SURROGATE.search(text):
        # Half a surrogate pair cannot be written again: it would break whoever logs or forwards the claim.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member appears twice")
    return members


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _is_shallow(value: dict[str, Any]) -> bool:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        members = (member for node in level for member in (node.values() if isinstance(node, dict) else node))
        level = [member for member in members if isinstance(member, dict | list)]
        if not level:
            return True
    return False


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_members, parse_float=_finite, parse_constant=_refuse_constant)
