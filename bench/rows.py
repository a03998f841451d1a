"""What can stand in front of the engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .bed import Bed
from .processes import Command


def _nothing_missing() -> str | None:
    return None


def _user_tokens(bed: Bed) -> Sequence[str]:
    return bed.user_tokens()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way to reach the engine.

    Attributes:
        command: How to start it on a port, with an empty folder of its own. None: the engine itself, nothing between.
        missing: Why it cannot run here, in a few words, or None.
        version: What was measured; called only when nothing is missing.
        tokens: The credentials its callers use.
        refuses: Which of `Issuer.hostile_tokens` it has to turn away. One that it lets through is reported: the row's
            numbers are then those of a check that it does not do.
        rewrites: It parses and writes anew what the engine streams, so that chunks need not match one to one.
        limits: What a reader has to know to compare it.
    """

    name: str
    title: str
    command: Callable[[Bed, int, Path], Command] | None
    missing: Callable[[], str | None] = _nothing_missing
    version: Callable[[], str]
    tokens: Callable[[Bed], Sequence[str]] = _user_tokens
    refuses: frozenset[str] = frozenset()
    rewrites: bool = False
    limits: str = ""
    start_seconds: float = 20
    ours: bool = False


EVERY_HOSTILE_TOKEN = frozenset(
    {
        "no token",
        "a broken signature",
        "another key's signature",
        "an expired token",
        "another audience's token",
    }
)

DIRECT = Row(name="direct", title="engine, nothing between", command=None, version=lambda: "bench/engine.c")
