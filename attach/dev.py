"""Dev mode: a gateway that needs no settings, for this machine alone."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from auth import AuthError, load_or_create
from middleware import is_loopback_name

from .faults import CannotRun
from .local_engine import EngineExtraMissing, LocalEngine, Progress
from .probe import EngineFound, probe

DEV_TOKEN_SECONDS = 12 * 3600.0


class DevError(CannotRun):
    """Dev mode does not start as asked. `str()` says why, and the mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevEngine:
    """The engine of a gateway in dev mode.

    Attributes:
        api_key: The Bearer token that it wants, if any.
        embedded: It is ours, and ends with us.
        died: Set when the embedded engine ended by itself; never set for any other.
    """

    found: EngineFound
    api_key: str | None = field(repr=False)
    embedded: bool
    died: asyncio.Event


def refuse_unsafe(*, host: str, workers: int) -> None:
    """Dev tokens are as good as no tokens to whoever reads the key file, so that dev mode keeps to this machine.

    Raises:
        DevError: `host` is open to others, or more than one worker is asked for.
    """
    if not is_loopback_name(host):
        raise DevError(f"dev mode listens on this machine only: use 127.0.0.1, localhost or ::1, not {host!r}")
    if workers != 1:
        raise DevError("dev mode runs one worker: leave out --workers")


def mint(data_dir: Path, user: str, *, lifetime: float = DEV_TOKEN_SECONDS) -> str:
    """A token with which dev mode over `data_dir` takes its bearer for `user`, for `lifetime` seconds.

    The key is made on the first call.

    Raises:
        DevError: Nobody can be called `user`.
        SigningKeyError: The key cannot be had.
    """
    issuer = load_or_create(data_dir)
    try:
        return issuer.dev_token(user, now=time.time(), lifetime=lifetime)
    except AuthError as exc:
        raise DevError(f"nobody can be called {user!r}: use printable ASCII, not beginning with did:") from exc


@asynccontextmanager
async def dev_engine(
    url: str, *, api_key: str | None, data_dir: Path, progress: Progress | None = None
) -> AsyncIterator[DevEngine]:
    """Whatever answers at `url`, else the embedded engine for as long as the block lasts.

    Args:
        api_key: Shown to the engine at `url`, and to no other.
        progress: As for `LocalEngine`; not called where an engine answers.

    Raises:
        DevError: Nothing answers, and the embedded engine is not installed.
        LocalEngineError: The embedded engine does not come up.
    """
    found = await probe(url, api_key=api_key)
    if found is not None:
        yield DevEngine(found=found, api_key=api_key, embedded=False, died=asyncio.Event())
        return
    async with AsyncExitStack() as stack:
        try:
            local = await stack.enter_async_context(LocalEngine(data_dir / "models", progress=progress))
        except EngineExtraMissing as missing:
            raise DevError(f"no engine answers at ENGINE_URL ({url}), and {missing}") from missing
        found = EngineFound(url=local.url, native=False, openai=True, models=local.models)
        yield DevEngine(found=found, api_key=local.api_key, embedded=True, died=local.died)


_PHASES = {
    "starting": "Starting the embedded engine",
    "unpacking": "Putting the model together (250 MB, only this once)",
    "loading": "Loading the model",
}


def progress_line(stream: TextIO) -> Progress:
    """Tell people at `stream` how far the embedded engine is: one line that changes on a terminal, else one a phase."""
    shown = ""

    def show(phase: str, elapsed: float) -> None:
        nonlocal shown
        if phase == "ready":
            stream.write("\x1b[K" * stream.isatty() + f"The embedded engine is ready after {elapsed:.1f} s.\n")
        elif stream.isatty():
            # Back at the line's start: whatever is said next stands there alone.
            stream.write(f"\x1b[K{_PHASES.get(phase, phase)} ... {elapsed:.0f} s\r")
        elif phase != shown:
            stream.write(f"{_PHASES.get(phase, phase)} ...\n")
        stream.flush()
        shown = phase

    return show
