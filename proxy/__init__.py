"""The way from a verified request to an upstream and back."""

from .connection import Origin
from .engine import EngineProxy, EngineSettings
from .errors import (
    ClientLeft,
    GatewayStopping,
    Unsupported,
    UpstreamBroken,
    UpstreamBusy,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from .exchange import Exchange, Timeouts
from .headers import Network
from .pool import PoolCounts, PoolLimits
from .transport import EngineTransport

__all__ = [
    "ClientLeft",
    "EngineProxy",
    "EngineSettings",
    "EngineTransport",
    "Exchange",
    "GatewayStopping",
    "Network",
    "Origin",
    "PoolCounts",
    "PoolLimits",
    "Timeouts",
    "Unsupported",
    "UpstreamBroken",
    "UpstreamBusy",
    "UpstreamError",
    "UpstreamTimeout",
    "UpstreamUnreachable",
]
