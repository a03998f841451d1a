"""Everything about usage, put together: what is on, and where it goes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from store import Journal, Outbox
from usage import (
    CountedUsage,
    MemoryMeter,
    Meter,
    Metrics,
    NullUsageBackend,
    OpenMeterUsage,
    QuotaSettings,
    RedisMeter,
    SeveralUsageBackends,
    UnlimitedMeter,
    UsageBackend,
    UsageRecord,
    UsageSettings,
)

from .settings import Settings
from .trust import LateTrust

if TYPE_CHECKING:
    from redis.asyncio import Redis

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metering:
    """Where usage goes.

    Attributes:
        usage: To be open while the gateway runs, after its journal is. Null where nothing is metered.
        record: For reading; written by `usage` only.
        meter: Counts the tokens of each user; unlimited where there is no quota.
        metrics: Of the whole process, metered or not.
        outbox: For whatever is to reach somebody else.
        metrics_dir: Where the workers of one gateway count together; None: there are no others.
    """

    settings: UsageSettings
    usage: UsageBackend
    record: UsageRecord
    meter: Meter
    metrics: Metrics
    outbox: Outbox
    metrics_dir: Path | None = None

    @property
    def on(self) -> bool:
        """Whether requests are metered, so that there is something to read and write."""
        return not isinstance(self.usage, NullUsageBackend)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """To be open as long as the gateway serves, within its journal."""
        self._announce()
        if self.metrics_dir is not None:
            self.metrics.share(self.metrics_dir)
        try:
            async with self.usage:
                yield
        finally:
            if isinstance(self.meter, RedisMeter):
                await self.meter.aclose()
            self.metrics.close()

    async def as_wanted(self) -> bool:
        """Whether everything is metered that somebody wants to be, as a check of `Readiness`."""
        return not self.settings.lacks_key

    def _announce(self) -> None:
        """Say at the start that somebody wants metering that will not happen, so that nobody overlooks it."""
        if self.settings.lacks_key:
            logger.error(
                "usage.NOT_METERED",
                extra={
                    "backend": "openmeter",
                    "problem": "OPENMETER_API_KEY is missing: nothing is sent to OpenMeter, and nobody is billed",
                    "mend": "set it, or take openmeter out of USAGE_METERING",
                },
            )


def build_metering(
    settings: Settings, journal: Journal, redis: Redis | None = None, *, metrics_dir: Path | None = None
) -> Metering:
    """Opens nothing. With a quota the gateway keeps its own record even where no backend is named."""
    wanted = settings.usage
    metrics = Metrics(user_label=wanted.user_label)
    record = UsageRecord(journal, keep_days=wanted.keep_days)
    outbox = Outbox(capacity=settings.outbox_max, capacity_bytes=settings.outbox_max_bytes)
    backends: list[UsageBackend] = [record, CountedUsage(metrics, users="prometheus" in wanted.backends)]
    if wanted.openmeter is not None:
        client = httpx.AsyncClient(timeout=5.0, verify=LateTrust())
        backends.append(OpenMeterUsage(wanted.openmeter, journal=journal, outbox=outbox, client=client))
    on = settings.quota is not None or "prometheus" in wanted.backends or wanted.openmeter is not None
    return Metering(
        settings=wanted,
        usage=SeveralUsageBackends(backends) if on else NullUsageBackend(),
        record=record,
        meter=build_meter(settings.quota, metrics, redis),
        metrics=metrics,
        outbox=outbox,
        metrics_dir=metrics_dir,
    )


def build_meter(quota: QuotaSettings | None, metrics: Metrics, redis: Redis | None) -> Meter:
    """What counts the tokens of each user: for this process, or for all with the same Redis."""
    if quota is None:
        return UnlimitedMeter()
    if redis is None:
        return MemoryMeter(quota.limit, window=quota.window)
    return RedisMeter(
        redis,
        quota.limit,
        window=quota.window,
        on_error=quota.on_store_error,
        on_unavailable=metrics.quota_store_failed,
    )
