"""What a request asks of an engine, read from its body once."""

from .paths import dialect_of
from .reading import RequestReading


def read_request(path: str, body: bytes, *, truncated: bool = False) -> RequestReading:
    """Read a request's body by its canonical path; whatever content type it came with.

    Never raises: what cannot be understood is left at its default.

    Args:
        truncated: Whether `body` is a head and a tail with something left out between them.
    """
    dialect, operation = dialect_of(path)
    return RequestReading(dialect=dialect, operation=operation)
