"""How many tokens a running stream has made, guessed from its bytes."""

from .paths import dialect_of, is_responses

# What frames of one token differ in, beside their token: numbers that grow, escapes, a role, a name.
_SLACK_BYTES = 24
_BYTES_PER_TOKEN = 4
# What tells of a stream's last frames: they are long and hold no text.
_LAST = (b'"usage":{', b'"timings":{', b'"done":true', b'"stop":true', b'"done": true', b'"usage": {')


class StreamEstimator:
    """Guesses the tokens of a stream while it runs; the engine's own count, at its end, is the true one.

    Engines send a frame a token, in wrapping that hardly changes: so a frame is one token, and what it has beyond the
    shortest frame so far, and some slack, counts four bytes a token, for engines that send several at once. What comes
    without frames is not counted while it runs, unless the dialect is unknown.
    """

    __slots__ = ("_frame_end", "_mark", "_shortest", "_tokens", "_unframed")

    def __init__(self, path: str = "") -> None:
        dialect, operation = dialect_of(path)
        self._frame_end = b"\n" if dialect == "ollama" else b"\n\n"
        # Most frames of a Responses stream repeat what others said.
        self._mark = b".delta" if is_responses(path) else b""
        self._unframed = 0 if operation != "other" else _BYTES_PER_TOKEN
        self._shortest = 1 << 30
        self._tokens = 0

    def add(self, piece: bytes) -> int:
        """Tokens so far, this piece counted in."""
        size = len(piece)
        frames = piece.count(self._frame_end) or piece.count(b"\r\n\r\n")
        if not frames:
            if self._unframed:
                self._tokens += size // self._unframed
        elif self._mark in piece:
            self._unframed = 0
            each = size // frames
            self._shortest = min(self._shortest, each)
            more = size - frames * (self._shortest + _SLACK_BYTES)
            if more > 0 and not any(word in piece for word in _LAST):
                self._tokens += more // _BYTES_PER_TOKEN
            self._tokens += frames
        return self._tokens
