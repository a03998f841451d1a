"""What is known of a metered exchange once it is over, and who wants to know it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

from store import Change


@dataclass(slots=True, kw_only=True)  # Not frozen: that is slow, and there is one for every request.
class UsageEvent:
    """One metered exchange, once it is over, however it ended. Nobody changes one. Times in seconds.

    Attributes:
        request_id: The gateway's own, never the caller's: one that comes twice counts once.
        user: Whose tokens they were.
        project: The caller's `X-Attach-Project`.
        model: As the engine calls it, else as the caller did; None where neither did.
        exact: The counts are the engine's own; else they are estimated.
        status: As sent to the client; 499 where it left before there was one.
        path: Canonical.
        at: When the exchange ended, since the epoch.
        first_token: From the request to the first piece of the answer's body; None: there was none.
        task_id: Of the task that it is part of.
    """

    request_id: str
    user: str
    project: str | None
    model: str | None
    tokens_in: int
    tokens_out: int
    exact: bool
    status: int
    path: str
    at: float
    duration: float
    first_token: float | None
    task_id: str | None = None


class UsageBackend(Protocol):
    """Where usage goes. An async context manager: open while a gateway runs, and after its journal is.

    Neither method may raise, nor wait for anything: an answer's last piece is held meanwhile.

    Attributes:
        writes: False: `changes` never has any.
        observes: False: `observe` does nothing.
    """

    writes: ClassVar[bool] = True
    observes: ClassVar[bool] = True

    def changes(self, event: UsageEvent) -> Change | None:
        """What is to be written with everything else of this exchange, in one commit; None: nothing.

        Applied twice, the change must do the same as once.
        """
        ...

    def observe(self, event: UsageEvent) -> None:
        """Called once for an exchange, after its changes are committed, or could not be in time."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...


class NullUsageBackend(UsageBackend):
    """Wants to know nothing."""

    writes = observes = False

    def changes(self, event: UsageEvent) -> Change | None:
        return None

    def observe(self, event: UsageEvent) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


class SeveralUsageBackends(UsageBackend):
    """Each of several, in their order."""

    def __init__(self, backends: Sequence[UsageBackend]) -> None:
        self.backends = tuple(backends)
        self._open = AsyncExitStack()
        self._changes = [backend.changes for backend in self.backends if backend.writes]
        self._observe = [backend.observe for backend in self.backends if backend.observes]

    def changes(self, event: UsageEvent) -> Change | None:
        changes: Change | None = None
        for of in self._changes:
            change = of(event)
            if change is not None:
                changes = change if changes is None else _both(changes, change)
        return changes

    def observe(self, event: UsageEvent) -> None:
        for observe in self._observe:
            observe(event)

    async def __aenter__(self) -> Self:
        for backend in self.backends:
            await self._open.enter_async_context(backend)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()


def _both(first: Change, second: Change) -> Change:
    return lambda connection: (first(connection), second(connection))
