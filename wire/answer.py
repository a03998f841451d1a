"""What an engine answered, read once from the bytes that passed."""

from .reading import AnswerReading


def read_answer(path: str, body: bytes, *, content_type: str = "", truncated: bool = False) -> AnswerReading:
    """Read an engine's answer: server-sent events, NDJSON, JSON or text, told apart by what it holds.

    Never raises: what cannot be understood is left at its default.

    Args:
        path: The canonical path of the request.
        content_type: What the engine called it: believed only where the bytes say nothing.
        truncated: Whether `body` is a head and a tail with something left out between them.
    """
    return AnswerReading()
