"""What an operator says about quotas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Midstream = Literal["stop", "finish"]
OnStoreError = Literal["allow", "deny"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaSettings:
    """How many tokens each user may use.

    Attributes:
        limit: Within any `window` seconds.
        midstream: Whether a stream whose user runs out of tokens is stopped, or finished.
        on_store_error: Whether requests are let through while a shared store of the quotas cannot be reached.
    """

    limit: int
    window: float = 60.0
    midstream: Midstream = "stop"
    on_store_error: OnStoreError = "allow"
