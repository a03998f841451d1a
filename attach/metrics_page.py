"""What `/metrics` shows beyond what is counted: how things stand at the moment somebody asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from fastapi.responses import Response

from store import Journal, JournalError, waiting
from usage import Family, Metrics, Shown, Viewer, exposition

from .readiness import Readiness
from .version import __version__

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
