"""The way to the engine with everything that looks on: quota, usage and memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.types import ASGIApp

from mem import Remembering
from middleware import ObserveMiddleware, Recorder, TokenQuotaMiddleware
from proxy import UpstreamError
from store import Journal
from usage import Meter, TokenCounter

from .errors import answer
from .metering import Metering
from .settings import Settings

# How long a start takes at most: what is loaded beside it would hold it up, and be strewn among what it leaves behind.
_START_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What looks on at the exchanges with the engine.

    Attributes:
        recorder: None: nothing is metered and nothing remembered, and nobody looks on.
        meter: Unlimited where there is no quota.
    """

    settings: Settings
    recorder: Recorder | None
    meter: Meter

    def around(self, engine: ASGIApp) -> ASGIApp:
        """`engine` observed, and within its callers' quotas.

        Whoever calls this in process gives a scope of type http whose `state` has, as the layers in front leave them,
        `identity`, `request_id`, `public_request_id` (bytes), `answer_fields` (a list) and `answer_started` (False);
        and `session_id`, `stamp`, `project`, `remember`, `task_id`, `run_id` and `agent` where they are known. `path`
        is canonical, and `raw_path` what the engine is asked for. The request id must not have been used before: usage
        and memory count each once. Raises what the layers raise, `QuotaError` and `UpstreamError` among it.
        """
        if self.recorder is None:
            return engine
        if self.settings.quota is not None:
            engine = TokenQuotaMiddleware(engine, meter=self.meter)
        asks = self.settings.observe.ask_for_usage and self.recorder.usage is not None
        return ObserveMiddleware(engine, recorder=self.recorder, ask_for_usage=asks)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """To be open while the gateway serves, within its journal and all that is written there."""
        if self.recorder is None:
            yield
            return
        if self.recorder.usage is not None:  # Memory keeps the engine's own counts, or none.
            self.recorder.counter.start(after=_START_SECONDS)
        async with self.recorder:
            yield


def build_observation(
    settings: Settings, journal: Journal, metering: Metering, memory: Remembering | None = None
) -> Observation:
    """Opens nothing."""
    recorder: Recorder | None = None
    if metering.on or memory is not None:
        recorder = Recorder(
            journal=journal,
            counter=TokenCounter(settings.observe.encoding),
            metrics=metering.metrics,
            usage=metering.usage if metering.on else None,
            memory=memory,
            midstream="stop" if settings.quota is None else settings.quota.midstream,
            capture_bytes=settings.observe.capture_bytes,
            commit_timeout=settings.observe.commit_timeout,
            status_of=_status_of,
        )
    return Observation(settings=settings, recorder=recorder, meter=metering.meter)


def _status_of(error: BaseException) -> int | None:
    """The status of an engine's failure; None: it was not the engine that failed."""
    if not isinstance(error, UpstreamError):
        return None
    refusal = answer(error)
    return None if refusal is None else refusal.status
