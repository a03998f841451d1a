"""Who may use how many tokens, who used how many, what is recorded of it and where it goes."""

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

__all__ = [
    "MemoryMeter",
    "Meter",
    "MeterUnavailable",
    "NullUsageBackend",
    "PromptExceedsQuota",
    "QuotaError",
    "QuotaExceeded",
    "Reservation",
    "SeveralUsageBackends",
    "Standing",
    "UnlimitedMeter",
    "UsageBackend",
    "UsageEvent",
]
