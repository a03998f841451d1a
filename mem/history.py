"""What was said before: each message known by its content, each turn by all that led to it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .cleaning import Cleaner, compact
from .redact import SLICE, Steps

DIGEST_SIZE = 16
UNREADABLE: Mapping[str, Any] = {"role": "unknown", "content": "[cannot be kept]"}


@dataclass(slots=True)
class Turn:
    """One message of a chat in its place.

    Attributes:
        content: Digest of the message.
        chain: Digest of the message and of all before it.
        message: As sent.
        body: As it is kept; None: it is believed to be kept already.
    """

    content: bytes
    chain: bytes
    message: Mapping[str, Any]
    size: int
    body: str | None = None


class Digests:
    """Names messages for one journal. Whoever reads only the names learns nothing of what was said."""

    def __init__(self, key: bytes) -> None:
        self._keyed = hashlib.blake2b(digest_size=DIGEST_SIZE, key=key)
        self._first = lru_cache(maxsize=1024)(lambda user: self._digest(user.encode()))

    def turns(self, user: str, messages: Sequence[Mapping[str, Any]]) -> Steps[list[Turn]]:
        """`messages` in their order, pausing after each slice of text."""
        turns: list[Turn] = []
        copy, chain, done = self._keyed.copy, self._first(user), 0
        for given in messages:
            message, encoded = _encoded(given)
            size, digest, led = len(encoded), copy(), copy()
            digest.update(encoded)
            content = digest.digest()
            led.update(chain + content)
            chain = led.digest()
            turns.append(Turn(content, chain, message, size))
            done += size
            if done >= SLICE:
                done = 0
                yield
        return turns

    def _digest(self, content: bytes) -> bytes:
        digest = self._keyed.copy()
        digest.update(content)
        return digest.digest()


def _encoded(message: Mapping[str, Any]) -> tuple[Mapping[str, Any], bytes]:
    """A message that can be kept, and bytes that are the same for the same message alone."""
    if len(message) == 2:
        role, content = message.get("role"), message.get("content")
        if isinstance(role, str) and isinstance(content, str):
            # As most are, in a fifth of the time. No JSON text begins with that byte.
            return message, f"\0{len(role)}:{role}{content}".encode(errors="backslashreplace")
    try:
        return message, compact(message).encode(errors="backslashreplace")
    except (RecursionError, TypeError, ValueError):
        return UNREADABLE, compact(UNREADABLE).encode()


def write_bodies(turns: Sequence[Turn], cleaner: Cleaner) -> Steps[None]:
    """Give each of `turns` what is to be kept of it, pausing after each slice of text."""
    done = 0
    for turn in turns:
        turn.body = compact((yield from cleaner.value(turn.message)))
        done += turn.size
        if done >= SLICE:
            done = 0
            yield


class Seen:
    """Messages that were kept lately. It may be wrong about one that was removed since."""

    def __init__(self, capacity: int = 50_000) -> None:
        self._capacity = capacity
        self._seen: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    def __contains__(self, message: tuple[str, bytes]) -> bool:
        if message not in self._seen:
            return False
        self._seen.move_to_end(message)
        return True

    def add(self, user: str, contents: Sequence[bytes]) -> None:
        for content in contents:
            self._seen[user, content] = None
        while len(self._seen) > self._capacity:
            self._seen.popitem(last=False)
