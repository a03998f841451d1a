"""Layers that a request only has to get past."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Receive, Scope, Send


class Check:
    """Looks at a request on its way in, notes what it finds on the scope, and raises where it is not to go on.

    It neither reads the request's body nor sees the answer. Checks that stand one behind the other are called in a row
    by the outermost of them, in their order: a coroutine for each would cost a request more than most of them do.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._row: tuple[Callable[[Scope], Awaitable[None] | None], ...] = (self.check,)
        self._behind = app
        if isinstance(app, Check):
            self._row += app._row
            self._behind = app._behind

    @abstractmethod
    def check(self, scope: Scope) -> Awaitable[None] | None:
        """Look at the request in `scope`, which is of type http; what is returned is waited for."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        for check in self._row:
            waiting = check(scope)
            if waiting is not None:
                await waiting
        await self._behind(scope, receive, send)
