"""Who used how many tokens: what is recorded of it and where it goes."""

from .interface import NullUsageBackend, SeveralUsageBackends, UsageBackend, UsageEvent

__all__ = ["NullUsageBackend", "SeveralUsageBackends", "UsageBackend", "UsageEvent"]
