"""Values out of JSON that others wrote: what has not the type that it should have is as good as absent."""

import json
from collections.abc import Mapping
from typing import Any

# What pydantic, and so vLLM, takes for true.
_ON = frozenset({"true", "1", "1.0", "yes", "on", "t", "y"})
# No answer has more: a larger count is a fault or a lie.
MOST_TOKENS = 1_000_000_000


def count_of(members: Mapping[str, Any], *names: str) -> int | None:
    """The first of these members that can be a number of tokens: whole, not negative, not absurd, no boolean."""
    for name in names:
        value = members.get(name)
        if value is None:
            continue
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is int and 0 <= value <= MOST_TOKENS:
            return value
    return None


def string_of(members: Mapping[str, Any], *names: str) -> str | None:
    """The first of these members that is a string and not empty."""
    for name in names:
        value = members.get(name)
        if isinstance(value, str) and value:
            return value
    return None


def objects_of(value: Any) -> list[dict[str, Any]]:
    """The objects in an array; none where it is no array."""
    return [inner for inner in value if isinstance(inner, dict)] if isinstance(value, list) else []


def object_of(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def compact(value: Any) -> str:
    """A value as JSON text, unless it is text already."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def error_of(members: Mapping[str, Any]) -> str | None:
    """What an error says: the dialects put it into `error`, as a sentence or in an object's `message`."""
    error = members.get("error")
    if error is None and "message" not in members:
        return None
    if isinstance(error, dict):
        return string_of(error, "message", "detail", "code", "type") or "error"
    if error and isinstance(error, str):
        return error
    return string_of(members, "message") if "error" in (members.get("object"), members.get("type")) else None


def is_on(value: Any) -> bool:
    """Whether some engine takes this for `true`."""
    return value is True or (bool(value) and isinstance(value, (str, int, float)) and str(value).lower() in _ON)
