"""Layers that a request only has to get past."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from types import FunctionType, MethodType

from starlette.types import ASGIApp, Receive, Scope, Send

Row = tuple[Callable[[Scope], Awaitable[None] | None], ...]


def derived_of(scope: Scope) -> dict[object, object] | None:
    """What layers have made of the request's head, each under a key of its own; None where nobody keeps it.

    Our own server does, from request to request of a connection as long as they say the same, their length apart. It
    counts for the fields that came from there, and no longer once a layer has put others in their place.
    """
    extensions = scope.get("extensions")
    known = None if extensions is None else extensions.get("attach.head")
    if known is None:
        return None
    fields, derived = known
    return derived if fields is scope["headers"] else None


def directly(app: ASGIApp) -> ASGIApp:
    """What a call of `app` comes to: Python takes a detour to the `__call__` of an object."""
    if isinstance(app, FunctionType | MethodType):
        return app
    return app.__call__  # type: ignore[no-any-return,operator]


class Check:
    """Looks at a request on its way in, notes what it finds on the scope, and raises where it is not to go on.

    It neither reads the request's body nor sees the answer. Checks that stand one behind the other are called in a row
    by the outermost of them, in their order: a coroutine for each would cost a request more than most of them do.

    Attributes:
        asks_head_only: What the head says decides whether a request gets past, and nothing is noted: a head that has
            got past need not be looked at again.
    """

    asks_head_only = False

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._row: Row = (self.check,)
        self._row_again: Row = () if self.asks_head_only else self._row
        self._got_past = object()
        self._behind = directly(app)
        if isinstance(app, Check):
            self._row += app._row
            self._row_again += app._row_again
            self._behind = app._behind

    @abstractmethod
    def check(self, scope: Scope) -> Awaitable[None] | None:
        """Look at the request in `scope`, which is of type http; what is returned is waited for."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        derived = derived_of(scope)
        known = derived is not None and self._got_past in derived
        for check in self._row_again if known else self._row:
            waiting = check(scope)
            if waiting is not None:
                await waiting
        if derived is not None and not known:
            derived[self._got_past] = True
        await self._behind(scope, receive, send)
