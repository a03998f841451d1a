"""What callers may cost before anybody knows who they are."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one connection may cost.

    Attributes:
        head_bytes: Size of a request's head; of the framing and trailers around its content too.
        head_fields: Fields in a head.
        head_seconds: For a head to arrive whole, and for an upload to end that is answered already.
        unread_bytes: Of such an upload, swallowed so that its sender gets to see the answer.
        idle_seconds: Between two requests. Load balancers in front must close first, or they send requests into
            connections that are just being closed: 60 s is what most of them keep theirs.
    """

    head_bytes: int = 64 * 1024
    head_fields: int = 100
    head_seconds: float = 10.0
    unread_bytes: int = 64 * 1024 * 1024
    idle_seconds: int = 75
