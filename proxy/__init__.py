"""The way from a verified request to an upstream and back."""

from .alarm import Alarm
from .connection import Origin
from .engine import EngineProxy, EngineSettings
from .errors import (
    ClientLeft,
    ExchangeEnded,
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
from .observer import Observer
from .pool import PoolCounts, PoolLimits
from .transport import EngineTransport

__all__ = [
    "Alarm",
    "ClientLeft",
    "EngineProxy",
    "EngineSettings",
    "EngineTransport",
    "Exchange",
    "ExchangeEnded",
    "GatewayStopping",
    "Network",
    "Observer",
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
