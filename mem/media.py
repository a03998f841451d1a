"""Images, audio and files inside messages: known again by their hash, not kept."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from typing import Any

_DATA_URL = re.compile(r"data:([\w.+-]{1,64}/[\w.+-]{1,64})?(?:;[\w.+=-]{1,128}){0,8};base64,", re.ASCII)
# Under these names Ollama, OpenAI and Anthropic carry bytes in base64.
_MEMBERS = frozenset({"images", "image", "data", "audio", "file_data", "b64_json", "video", "input_audio"})
_SHORTEST = 64  # What is shorter is a word, as in `{"data": "yes"}`.


def digest_of(member: str, text: str) -> Mapping[str, Any] | None:
    """What stands in the place of `text`, a string inside the member of that name; None: it is no media.

    The hash is of the decoded bytes, as of the file that was sent, where `text` decodes.
    """
    match = _DATA_URL.match(text) if text.startswith("data:") else None
    if match is None and not (member in _MEMBERS and len(text) >= _SHORTEST and _is_base64(text)):
        return None
    encoded = text[match.end() :] if match else text
    try:
        content = base64.b64decode(encoded.encode("ascii", "replace"), validate=False)
    except binascii.Error:
        content = encoded.encode(errors="replace")
    kind = {"type": match[1]} if match and match[1] else {}
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), **kind}


def _is_base64(text: str) -> bool:
    head = text[:256]
    return (
        " " not in head
        and head.replace("+", "")
        .replace("/", "")
        .replace("-", "")
        .replace("_", "")
        .rstrip("=\r\n")
        .replace("\n", "")
        .replace("\r", "")
        .isalnum()
    )
