"""JSON that others wrote: whole, cut off, or with its middle missing; reading it never raises."""

import json
import re
from collections.abc import Callable, Collection
from itertools import islice
from typing import Any

# Deeper than any API nests, and well below where the standard library's own writer gives up.
_MAX_DEPTH = 200
_TOKEN = re.compile(
    r"""(?P<string>"[^"\\]*(?:\\.[^"\\]*)*") | (?P<cut>".*)
    | (?P<open>[{\[]) | (?P<close>[}\]]) | (?P<comma>,) | (?P<colon>:) | (?P<word>[^\s"{}\[\],:]+)""",
    re.DOTALL | re.VERBOSE,
)
# A part of a body is not worth seconds: texts are one token each, and what has more of them is no answer.
_MOST_TOKENS = 50_000
_BRACE = ord("{")
_SPACE = " \t\n\r"  # RFC 8259 §2
_HALF_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_NUMBERS = re.compile(r"\[[\s0-9eE+\-.,]{20,}\]")


class _Broken:
    """What a text holds that is no JSON."""


BROKEN = _Broken()


def decoded(body: bytes) -> str:
    """The text of a body: UTF-8, or the UTF-16 and UTF-32 that some JSON parsers still take (RFC 4627 §3)."""
    plain = not body or begins_plainly(body)
    return body.decode("utf-8" if plain else json.detect_encoding(body[:8]), "replace")


def begins_plainly(body: bytes) -> bool:
    """Whether a body is an object in UTF-8 by its first two bytes, as nearly every one is."""
    return len(body) > 1 and body[0] == _BRACE and body[1] != 0


def parsed(text: str | bytes) -> Any:
    """The JSON value that a text is, or `BROKEN`, which it is too where it nests too deeply to be walked through.

    `NaN` and `Infinity`, which some write, are None.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    value = _loaded(text)
    may_be = value is not BROKEN and len(text) > _MAX_DEPTH and text.count("[") + text.count("{") > _MAX_DEPTH
    return BROKEN if may_be and _too_deep(value) else value


def _loaded(text: str) -> Any:
    text = text.strip(_SPACE)
    try:
        value, end = _scan(text, 0)
    except (StopIteration, ValueError, RecursionError):
        return BROKEN
    return value if end == len(text) else BROKEN


def parsed_at(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that begins at `start`, and where it ends; `BROKEN` where none does."""
    try:
        value, end = _scan(text, start)
    except (StopIteration, ValueError, RecursionError):
        return BROKEN, start
    if end - start > _MAX_DEPTH and text.count("[", start, end) + text.count("{", start, end) > _MAX_DEPTH:
        return BROKEN, start
    return value, end


def without_vectors(text: str) -> str:
    """The text with its long arrays of numbers emptied: nobody reads embeddings here."""
    return _NUMBERS.sub("[]", text)


def mended(text: str) -> str:
    """The text with halves of surrogate pairs joined, and replaced where the other half is missing.

    JSON can carry a half; UTF-8, and so any store, cannot.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def mended_values(value: Any) -> Any:
    """The value with every string in it mended, names too."""
    if isinstance(value, str):
        return mended(value)
    if isinstance(value, list):
        return [mended_values(inner) for inner in value]
    if isinstance(value, dict):
        return {mended(name): mended_values(inner) for name, inner in value.items()}
    return value


def salvaged(text: str, *, last: Collection[str], has_tail: bool) -> tuple[dict[str, Any], bool]:
    """The members of an object whose text is cut short, or lacks a part in its middle; and whether its end was there.

    Strings, arrays and objects that the cut left open end there. Of the members that stand `last`, those found whole
    behind the cut count, with what follows them, if `has_tail`; one that was just being told at the cut does not.
    Quotes inside a JSON string are escaped, so nothing in a prompt or an answer passes for a member.
    """
    head = parsed(_closed(text))
    members = dict(head) if isinstance(head, dict) else {}
    if members and (name := next(reversed(members))) in last and not isinstance(members[name], str):
        del members[name]
    ended = False
    for name in last if has_tail else ():
        at = text.rfind(f'"{name}"')
        tail = parsed("{" + text[at:]) if at >= 0 else None
        if isinstance(tail, dict):
            members.update(tail)
            ended = True
    return members, ended


def _closed(text: str) -> str:
    """As much of the text as is JSON, with what is open at its end closed."""
    prefix = text[: _valid_up_to(text)]
    closers: list[str] = []
    whole, at_name, ending = 0, False, ""
    for token in islice(_TOKEN.finditer(prefix), _MOST_TOKENS):
        match token.lastgroup:
            case "open":
                closers.append("}" if token[0] == "{" else "]")
                at_name = token[0] == "{"
            case "close" if closers:
                closers.pop()
            case "comma":
                at_name = closers[-1:] == ["}"]
                continue
            case "colon":
                at_name = False
                continue
            case "cut" if not at_name:
                ending = prefix[whole : token.start()] + _HALF_ESCAPE.sub("", token[0]) + '"'
                break
            case _ if at_name or (token.lastgroup == "word" and token.end() == len(prefix)):
                continue  # no value, or one whose last digits may be missing
        whole = token.end()
    return prefix[:whole] + ending + "".join(reversed(closers))


def _valid_up_to(text: str) -> int:
    try:
        json.loads(text)
    except json.JSONDecodeError as fault:
        return len(text) if fault.msg.startswith("Unterminated string") else fault.pos
    except (ValueError, RecursionError):
        return 0
    return len(text)


def _no_number(name: str) -> None:
    """What a constant that JSON has not is read as."""


# Raises StopIteration where no value begins. `raw_decode` is this, and two calls more.
_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder(parse_constant=_no_number).scan_once  # type: ignore[attr-defined]


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
