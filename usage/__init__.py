"""Who may use how many tokens, who used how many, what is recorded of it and where it goes."""

from .counted import CountedUsage
from .exposition import Everybody, Shown, Somebody, Viewer, exposition
from .interface import NullUsageBackend, SeveralUsageBackends, UsageBackend, UsageEvent
from .meter import (
    MemoryMeter,
    Meter,
    MeterUnavailable,
    PromptExceedsQuota,
    QuotaError,
    QuotaExceeded,
    Reservation,
    Standing,
    UnlimitedMeter,
)
from .metrics import Metrics
from .openmeter import OpenMeterUsage
from .quota import Midstream, OnStoreError, QuotaSettings
from .record import DailyUsage, UsageRecord, days_before
from .redis_meter import RedisMeter
from .series import Family
from .settings import BackendName, OpenMeterSettings, UsageSettings, UserLabel
from .tokens import TokenCounter

__all__ = [
    "BackendName",
    "CountedUsage",
    "DailyUsage",
    "Everybody",
    "Family",
    "MemoryMeter",
    "Meter",
    "MeterUnavailable",
    "Metrics",
    "Midstream",
    "NullUsageBackend",
    "OnStoreError",
    "OpenMeterSettings",
    "OpenMeterUsage",
    "PromptExceedsQuota",
    "QuotaError",
    "QuotaExceeded",
    "QuotaSettings",
    "RedisMeter",
    "Reservation",
    "SeveralUsageBackends",
    "Shown",
    "Somebody",
    "Standing",
    "TokenCounter",
    "UnlimitedMeter",
    "UsageBackend",
    "UsageEvent",
    "UsageRecord",
    "UsageSettings",
    "UserLabel",
    "Viewer",
    "days_before",
    "exposition",
]
