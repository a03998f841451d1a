"""What was said before: each message known by its content, each turn by all that led to it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from .cleaning import Cleaner, compact
from .redact import SLICE, Steps

DIGEST_SIZE = 16
UNREADABLE: Mapping[str, Any] = {"role": "unknown", "content": "[cannot be kept]"}


_Hash = hashlib.blake2b


class Turn:
    """One message of a chat in its place. Its digests are made once somebody asks: most of a chat is known already.

    Attributes:
        message: As sent.
        size: Bytes of it.
        body: As it is kept; None: it is believed to be kept already.
    """

    __slots__ = ("_chain", "_content", "_led", "_start", "body", "message", "size")

    message: Mapping[str, Any]
    size: int
    body: str | None
    _start: _Hash
    _led: _Hash
    _content: bytes | None
    _chain: bytes | None

    @property
    def content(self) -> bytes:
        """Digest of the message, and of whose it is."""
        content = self._content
        if content is None:
            digest = self._start.copy()
            digest.update(_encoded(self.message)[1])
            content = self._content = digest.digest()
        return content

    @property
    def chain(self) -> bytes:
        """Digest of the message, of all before it, and of whose they are."""
        chain = self._chain
        if chain is None:
            chain = self._chain = self._led.digest()
        return chain


class Digests:
    """Names messages for one journal. Whoever reads only the names learns nothing of what was said."""

    def __init__(self, key: bytes) -> None:
        self._keyed = _Hash(digest_size=DIGEST_SIZE, key=key)
        self._starts = lru_cache(maxsize=1024)(self._starts_of)

    def turns(self, user: str, messages: Sequence[Mapping[str, Any]]) -> Steps[list[Turn]]:
        """`messages` in their order, pausing after each slice of text."""
        turns: list[Turn] = []
        start, chain = self._starts(user)
        chain = chain.copy()
        while _go_on(turns, messages, start, chain):
            yield
        return turns

    def turns_now(self, user: str, messages: Sequence[Mapping[str, Any]]) -> list[Turn] | None:
        """As `turns`; None: they are a slice of text or more."""
        turns: list[Turn] = []
        start, chain = self._starts(user)
        return None if _go_on(turns, messages, start, chain.copy()) else turns

    def _starts_of(self, user: str) -> tuple[_Hash, _Hash]:
        """What every digest of a user's messages begins with, and every one of his chats'."""
        message, chat = self._keyed.copy(), self._keyed.copy()
        message.update(f"message {len(user)}:{user}".encode(errors="surrogatepass"))
        chat.update(f"chat {len(user)}:{user}".encode(errors="surrogatepass"))
        return message, chat


def _go_on(turns: list[Turn], messages: Sequence[Mapping[str, Any]], start: _Hash, chain: _Hash) -> bool:
    """Add the turns of the next messages, with each of which `chain` goes on; up to a slice of text: was it one?"""
    size = 0
    for given in messages[len(turns) :]:
        message, encoded = _encoded(given)
        chain.update(encoded)
        turn = Turn()
        turn.message, turn.size = message, len(encoded)
        turn.body = turn._content = turn._chain = None
        turn._start, turn._led = start, chain.copy()
        turns.append(turn)
        size += turn.size
        if size >= SLICE:
            return True
    return False


def _encoded(message: Mapping[str, Any]) -> tuple[Mapping[str, Any], bytes]:
    """A message that can be kept, and bytes that are the same for the same message alone, whatever follows them."""
    if len(message) == 2:
        role, content = message.get("role"), message.get("content")
        if isinstance(role, str) and isinstance(content, str):
            # As most are, in a fifth of the time. No JSON text begins with that byte.
            text = f"\0{len(role)}:{len(content)}:{role}{content}"
            return message, text.encode() if text.isascii() else _bytes_of(text)
    try:
        return message, _bytes_of(compact(message))
    except (RecursionError, TypeError, ValueError):
        return UNREADABLE, compact(UNREADABLE).encode()


def _bytes_of(text: str) -> bytes:
    try:
        return text.encode()  # Twice as fast as with the name of what to do about errors.
    except UnicodeEncodeError:
        return text.encode(errors="surrogatepass")


def name_messages(turns: Sequence[Turn]) -> Steps[None]:
    """Make the digest of each message, pausing after each slice of text."""
    done = 0
    for turn in turns:
        done += turn.size if turn.content else 0
        if done >= SLICE:
            done = 0
            yield


def write_bodies(turns: Sequence[Turn], cleaner: Cleaner) -> Steps[None]:
    """Give each of `turns` what is to be kept of it, pausing after each slice of text."""
    done = 0
    for turn in turns:
        turn.body = cleaner.body(turn.message) or compact((yield from cleaner.value(turn.message)))
        done += turn.size
        if done >= SLICE:
            done = 0
            yield


class Seen:
    """What was kept lately: messages, and chats up to each of their turns. It may be wrong: some may be gone.

    It knows at least half of `capacity` digests, those last asked for.
    """

    def __init__(self, capacity: int = 100_000) -> None:
        self._most = capacity // 2
        self._young: set[bytes] = set()
        self._old: set[bytes] = set()

    def behind(self, turns: Sequence[Turn]) -> list[Turn]:
        """Those of a chat's turns behind the last one seen."""
        behind: list[Turn] = []
        for turn in reversed(turns):
            if self._has(turn.chain):
                break
            behind.append(turn)
        behind.reverse()
        return behind

    def unseen(self, turns: Sequence[Turn]) -> list[Turn]:
        """Each message that was not seen, once."""
        return list({turn.content: turn for turn in turns if not self._has(turn.content)}.values())

    def add(self, turns: Sequence[Turn]) -> None:
        if len(self._young) >= self._most:
            self._young, self._old = set(), self._young
        for turn in turns:
            self._young.update((turn.chain, turn.content))

    def _has(self, digest: bytes) -> bool:
        if digest in self._young:
            return True
        if digest not in self._old:
            return False
        self._young.add(digest)
        return True
