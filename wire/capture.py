"""The bytes of a body, kept as they pass, up to a limit."""


class Capture:
    """All of a body, or its head and its tail where it is longer than `limit`.

    Pieces are copied: a body that comes in millions of tiny pieces, or in one huge one, costs no more than its limit
    and a half.

    Attributes:
        length: Of the whole body, what was dropped included.
        truncated: Something between head and tail is gone.
    """

    __slots__ = ("_head", "_head_bytes", "_tail", "_tail_bytes", "length", "truncated")

    def __init__(self, limit: int) -> None:
        self._head_bytes = limit - limit // 2
        self._tail_bytes = limit // 2
        self._head = bytearray()
        self._tail = bytearray()
        self.length = 0
        self.truncated = False

    def add(self, piece: bytes) -> None:
        self.length += len(piece)
        if self.length <= self._head_bytes:
            self._head += piece
            return
        if room := self._head_bytes - len(self._head):
            self._head += piece[:room]
            piece = piece[room:]
        self.truncated = self.length > self._head_bytes + self._tail_bytes
        self._keep_end(piece)

    def _keep_end(self, piece: bytes) -> None:
        kept = self._tail_bytes
        if len(piece) >= kept:
            self._tail = bytearray(piece[len(piece) - kept :])
            return
        self._tail += piece
        # Not at every piece: cutting moves what is left.
        if len(self._tail) > kept + kept // 2:
            del self._tail[: len(self._tail) - kept]

    def content(self) -> bytes:
        """Everything, or head and tail with an empty line between them, so that what the cut left is nobody's rest."""
        if self.truncated:
            return bytes(self._head) + b"\n\n" + bytes(self._tail[len(self._tail) - self._tail_bytes :])
        return bytes(self._head + self._tail if self._tail else self._head)
