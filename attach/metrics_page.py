"""What `/metrics` shows beyond what is counted: how things stand at the moment somebody asks."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from auth import AuthError, credential
from store import Journal, JournalError, waiting
from usage import Everybody, Family, Metrics, Shown, Viewer, exposition

from .readiness import Readiness
from .version import __version__

METRICS = "/metrics"

_BUILD = Family("attach_build_info", "gauge", "Which version this is.", ("version",))
_READY = Family("attach_ready", "gauge", "Whether requests should be sent here.")
_ENGINE = Family("attach_engine_up", "gauge", "Whether the engine answers.", ("engine",))
_WAITING = Family("attach_outbox_entries", "gauge", "What waits for a sink.", ("sink",))
_OLDEST = Family("attach_outbox_oldest_seconds", "gauge", "For how long the oldest of it has waited.", ("sink",))
_DROPPED = Family("attach_outbox_dropped_total", "counter", "Let go because too much waited.", ("sink",))
_REJECTED = Family("attach_outbox_set_aside_total", "counter", "Refused by the sink again and again.", ("sink",))
_DEFAULT = "default"  # The one engine that there is. Its address is nothing for users' eyes.


class MetricsPage:
    """Renders what a viewer may see, with what the journal, the engine and the kernel say at that moment."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        readiness: Readiness,
        journal: Journal | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`journal` None: there is none."""
        self._metrics = metrics
        self._readiness = readiness
        self._journal = journal
        self._clock = clock

    async def answer(self, viewer: Viewer, accept: str) -> Response:
        """The whole page; `accept` as in the request's field."""
        shown = [*await self._health(), *await self._outbox()]
        body, media_type = await asyncio.to_thread(
            exposition,
            self._metrics.readings(),
            shown,
            viewer=viewer,
            accept=accept,
            process=not self._metrics.shared,
        )
        return Response(body, headers={"Content-Type": media_type, "Cache-Control": "no-store"})

    async def _health(self) -> list[Shown]:
        missing = await self._readiness.reasons()
        return [
            Shown(_BUILD, {(__version__,): 1.0}),
            Shown(_READY, {(): float(not missing)}),
            Shown(_ENGINE, {(_DEFAULT,): float("engine" not in missing)}),
        ]

    async def _outbox(self) -> list[Shown]:
        """Nothing where the record cannot be read: what is not known is not shown as 0."""
        if self._journal is None:
            return []
        try:
            sinks = await self._journal.read(waiting)
        except JournalError:
            return []
        now = self._clock()
        return [
            Shown(_WAITING, {(sink,): float(found.entries) for sink, found in sinks.items()}),
            Shown(
                _OLDEST,
                {(sink,): 0.0 if found.oldest is None else now - found.oldest for sink, found in sinks.items()},
            ),
            Shown(_DROPPED, {(sink,): float(found.dropped) for sink, found in sinks.items()}),
            Shown(_REJECTED, {(sink,): float(found.rejected) for sink, found in sinks.items()}),
        ]


class MetricsTokenMiddleware:
    """Show all of `/metrics` to whoever has the one token that is nobody's. Everybody else goes on to sign in."""

    def __init__(self, app: ASGIApp, *, page: MetricsPage, token: str) -> None:
        self.app = app
        self._page = page
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != METRICS or not self._is_shown(scope):
            await self.app(scope, receive, send)
            return
        answer = await self._page.answer(Everybody(), Headers(scope=scope).get("accept", ""))
        await answer(scope, receive, send)

    def _is_shown(self, scope: Scope) -> bool:
        if scope["method"] not in ("GET", "HEAD"):
            return False
        try:
            return hmac.compare_digest(credential(scope["headers"]).encode(), self._token)
        except AuthError:  # It is told so further on.
            return False


def metrics_token_layer(token: str | None, page: MetricsPage) -> list[Middleware]:
    """`MetricsTokenMiddleware`, in front of signing in, where there is a token for it."""
    return [] if token is None else [Middleware(MetricsTokenMiddleware, page=page, token=token)]
