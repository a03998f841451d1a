"""Where a stream's last frame ends, found without reading the stream.

Bytes alone tell a mark from the same characters inside a JSON string: there a quote is `\\"` and a line feed `\\n`, two
characters each. So what follows a bare line end begins a field, and `"done":` with bare quotes is a member's name.
Whose member, the line's own object's or that of some tool call's arguments, is told by the brackets open before it.
"""

import re
from collections.abc import Callable, Sequence

from .paths import dialect_of, is_responses

_LINE_END = b"\n"
_BLANK_LINE = b"\n\n"
# A word, behind a byte of it that is rare: a glance for that costs a fifth.
Sign = tuple[int, bytes]
_DONE: Sign = (ord("D"), b"[DONE]")
_USAGE: Sign = (ord("g"), b'"usage"')
_TRUE: Sign = (ord("u"), b"true")
_STOPPED: tuple[Sign, ...] = ((ord("p"), b"message_stop"),)
_ANSWERED: tuple[Sign, ...] = (
    (ord("c"), b"response.completed"),
    (ord("f"), b"response.failed"),
    (ord("c"), b"response.incomplete"),
)
_MARK = re.compile(
    rb"(?:\A|[\r\n])(?:data: ?\[DONE\]|(?P<named>event: ?%(names)s|data: ?\{\s*\"type\"\s*:\s*\"%(names)s\"))"
    % {b"names": rb"(?:message_stop|response\.(?:completed|failed|incomplete))"}
)
_EVENT_END = re.compile(rb"\n\r?\n|\r\n?\r")
_BORDER = 80  # longer than any mark

_DONE_MEMBER = re.compile(rb'"done"\s*:\s*true')
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
# Of a longer line only the end is kept, and then any `"done":true` in it is believed.
_LONGEST_LINE = 64 * 1024


class LastFrame:
    """Looks for the frame that ends an answer in the dialect of canonical `path`.

    Costs a fraction of a microsecond for a usual piece; keeps at most 64 KiB, and those only of a line that is not
    whole yet.

    Attributes:
        seen: Takes the next piece of the answer, and tells whether the last frame is complete with it, or was before.
    """

    __slots__ = ("seen",)

    def __init__(self, path: str) -> None:
        end, signs = signs_of(path)
        search: _Events | _Lines = _Lines() if end == _LINE_END else _Events([word for _, word in signs])
        self.seen: Callable[[bytes], bool] = search.seen


def signs_of(path: str, *, usage: bool = False) -> tuple[bytes, tuple[Sign, ...]]:
    """What frames end with in the dialect of canonical `path`, and words of which the last frame has one.

    A piece that ends so, behind one that did, and has none of the words, is nothing that `LastFrame` need see. Without
    the byte before a word it has not the word either.
    With `usage` it is nothing that `UsageChunkFilter` need see either.
    """
    dialect, _ = dialect_of(path)
    if dialect == "ollama":
        return _LINE_END, (_TRUE,)
    told = (_USAGE,) if usage else ()
    if dialect == "unknown":
        return _BLANK_LINE, (_DONE, *_STOPPED, *_ANSWERED, *told)
    names = _STOPPED if dialect == "anthropic" else _ANSWERED if is_responses(path) else ()
    return _BLANK_LINE, (_DONE, *names, *told)


class _Events:
    """Server-sent events: the last is whole once the blank line behind it is there, `[DONE]` as soon as it is said."""

    __slots__ = ("_border", "_found", "_named", "_word", "_words")

    def __init__(self, words: Sequence[bytes]) -> None:
        self._word, *self._words = words
        self._border = b""  # what the last piece ended with, where that was not a line's end
        self._found = self._named = False

    def seen(self, piece: bytes) -> bool:
        window = self._border + piece if self._border else piece
        if self._word in window or self._named or self._found:
            return self._ends(window)
        for word in self._words:
            if word in window:
                return self._ends(window)
        self._border = b"" if piece.endswith(b"\n") else _end_of(window)
        return False

    def _ends(self, window: bytes) -> bool:
        if self._found:
            return True
        start = 0
        if not self._named:
            mark = _MARK.search(window)
            if mark is not None:
                self._named, self._found, start = bool(mark["named"]), not mark["named"], mark.end()
        if self._named:
            self._found = _EVENT_END.search(window, start) is not None
        self._border = _end_of(window[start:])
        return self._found


def _end_of(window: bytes) -> bytes:
    """As much as a mark may begin in. Where it is cut, it does not look like a line's beginning."""
    return window if len(window) <= _BORDER else b"." + window[1 - _BORDER :]


class _Lines:
    """NDJSON: the last line has a member `done` that is true, and is whole at its line feed or last bracket."""

    __slots__ = ("_counted", "_depth", "_done", "_found", "_headless", "_line", "_searched")

    def __init__(self) -> None:
        self._done = self._found = False
        self._line = bytearray()
        self._begin_line()

    def _begin_line(self) -> None:
        self._headless = False
        self._searched = self._counted = self._depth = 0

    def seen(self, piece: bytes) -> bool:
        if not self._line and not self._done and b"true" not in piece and piece.endswith(b"\n"):
            return False
        if self._found:
            return True
        for start in range(0, len(piece), _LONGEST_LINE):
            if self._ends(piece[start : start + _LONGEST_LINE]):
                self._found = True
                break
        return self._found

    def _ends(self, piece: bytes) -> bool:
        if self._done:
            return _ends_line(piece)
        self._line += piece
        found = self._search()
        self._shorten()
        return found

    def _search(self) -> bool:
        line = self._line
        while found := _DONE_MEMBER.search(line, self._searched):  # An iterator would keep the line from being cleared.
            self._searched = found.end()
            if self._is_own(found.start(), found.end()):
                self._done = True
                rest = bytes(line[found.end() :])
                self._line = bytearray()
                return _ends_line(rest)
        return False

    def _is_own(self, start: int, end: int) -> bool:
        """Whether the member at `start` is one of the line's own object. Counts on from where it last stopped."""
        feed = self._line.rfind(b"\n", self._counted, start)
        if feed >= 0:
            self._begin_line()
            self._counted, self._searched = feed + 1, end
        if self._headless:
            return True
        bare, in_string, _ = _STRING.sub(b"", self._line[self._counted : start]).partition(b'"')
        self._depth += bare.count(b"{") + bare.count(b"[") - bare.count(b"}") - bare.count(b"]")
        self._counted = start + len(b'"done"') if in_string else end
        return self._depth == 1 and not in_string

    def _shorten(self) -> None:
        """Keep the line that is not whole yet, and no more of it than the longest."""
        whole = self._line.rfind(b"\n") + 1
        if whole:
            del self._line[:whole]
            self._begin_line()
        if len(self._line) > _LONGEST_LINE:
            del self._line[:-_BORDER]
            self._begin_line()
            self._headless = True
        self._searched = max(self._searched, len(self._line) - _BORDER)


def _ends_line(rest: bytes) -> bool:
    return b"\n" in rest or rest.rstrip().endswith(b"}")
