"""Where a stream's last frame ends, found without reading the stream."""


class LastFrame:
    """Looks for the frame that ends an answer in the dialect of canonical `path`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def seen(self, piece: bytes) -> bool:
        """Whether the last frame is complete with this piece, or was before."""
        return False
