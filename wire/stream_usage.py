"""Token counts for streams whose client did not ask for them: asked for on the way up, taken out on the way down."""

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from .events import server_sent_events
from .json_text import parsed
from .paths import dialect_of, is_responses
from .values import is_on

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
_ASK = b'"include_usage":true'

# Of an event's end, by whatever line ends (WHATWG HTML §9.2.6). A carriage return at the very end may be half of one.
_EVENT_END = re.compile(rb"\r\n(?:\r\n|\n|\r(?!\Z))|\n(?:\r\n|\n|\r(?!\Z))|\r(?!\n)(?:\r\n|\r(?!\Z))")
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
# A longer event is not the one we look for.
_LONGEST_EVENT = 64 * 1024


def ask_for_usage(path: str, body: bytes) -> bytes | None:
    """The body with `stream_options.include_usage` set, otherwise to the byte as it was.

    None where nothing is to be done: it asks for no stream of OpenAI's chat or completions, the client itself set
    `include_usage`, to whatever value, or it is no JSON in UTF-8.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeError:
        return None
    return asking(path, body, text, parsed(text))


def asking(path: str, body: bytes, text: str, asked: Any) -> bytes | None:
    """As `ask_for_usage`, of a body in UTF-8 whose text and whose value are known."""
    if not isinstance(asked, dict) or not is_on(asked.get("stream")):
        return None
    if "stream_options" not in asked:
        return with_usage(path, body)
    if not _counts_on_demand(path):
        return None
    try:
        return _spliced(text, asked["stream_options"])
    except (UnicodeError, ValueError, RecursionError):
        return None


def with_usage(path: str, body: bytes) -> bytes | None:
    """As `ask_for_usage`, of an object in UTF-8 that asks for a stream, and has no `stream_options`."""
    if not _counts_on_demand(path):
        return None
    at = body.index(b"{") + 1
    return b'%b"stream_options":{%b},%b' % (body[:at], _ASK, body[at:])


@lru_cache(maxsize=64)
def _counts_on_demand(path: str) -> bool:
    """Whether a stream there tells its counts to those who ask."""
    dialect, operation = dialect_of(path)
    return dialect == "openai" and operation in ("chat", "completion") and not is_responses(path)


def _spliced(text: str, options: Any) -> bytes | None:
    # Of a name that comes twice the last counts, as for the engine.
    start, end = [span for name, *span in _members(text) if name == "stream_options"][-1]
    if options is None:
        return text[:start].encode() + b"{" + _ASK + b"}" + text[end:].encode()
    if not isinstance(options, dict) or "include_usage" in options:
        return None
    return text[: start + 1].encode() + _ASK + (b"," if options else b"") + text[start + 1 :].encode()


def _members(text: str) -> Iterator[tuple[str, int, int]]:
    """Each name in the object that `text` is, and where its value begins and ends."""
    at = text.index("{") + 1
    while True:
        at = _after_space(text, at)
        name, at = _DECODER.raw_decode(text, at)
        start = _after_space(text, _after_space(text, at) + 1)
        _, at = _DECODER.raw_decode(text, start)
        yield name, start, at
        at = _after_space(text, at)
        if text[at] != ",":
            return
        at += 1


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


class UsageChunkFilter:
    """Takes the chunk that only tells the usage out of a stream of server-sent events; the rest passes byte for byte.

    `feed` gives back what may go on at once. What is not whole yet, and may become that chunk, is held: at most 64 KiB.
    """

    __slots__ = ("_held", "_passing")

    def __init__(self) -> None:
        self._held = bytearray()
        self._passing = False  # the rest of an event too long to hold

    def feed(self, piece: bytes) -> bytes:
        if not self._held and not self._passing and piece.endswith(b"\n\n") and not _NO_CHOICES.search(piece):
            return piece
        searched = max(0, len(self._held) - 3)
        self._held += piece
        ready = self._take_whole_events(searched)
        if self._passing or len(self._held) > _LONGEST_EVENT:
            self._passing = True
            # Line ends may be the first half of the event's end.
            ready += self._take(max(len(self._held.rstrip(b"\r\n")), len(self._held) - 3))
        return bytes(ready)

    @property
    def idle(self) -> bool:
        """Nothing is held: the next event begins with the next piece."""
        return not self._held and not self._passing

    def end(self) -> bytes:
        """What was still held when the stream ended."""
        rest = self._take(len(self._held))
        return b"" if _tells_usage_only(rest) and not self._passing else bytes(rest)

    def _take_whole_events(self, searched: int) -> bytearray:
        ready = bytearray()
        start = 0
        for match in _EVENT_END.finditer(self._held, searched):
            event = self._held[start : match.end()]
            if self._passing or not _tells_usage_only(event):
                ready += event
            self._passing = False
            start = match.end()
        del self._held[:start]
        return ready

    def _take(self, size: int) -> bytearray:
        taken = self._held[:size]
        del self._held[:size]
        return taken


def _tells_usage_only(event: bytearray) -> bool:
    if not _NO_CHOICES.search(event):
        return False
    chunks = [parsed(content) for _, content in server_sent_events(bytes(event))]
    return any(
        isinstance(chunk, dict) and chunk.get("choices") == [] and isinstance(chunk.get("usage"), dict)
        for chunk in chunks
    )
