"""The way from a verified request to an upstream and back."""

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
from .headers import Network
from .transport import EngineTransport

__all__ = [
    "ClientLeft",
    "EngineProxy",
    "EngineSettings",
    "EngineTransport",
    "GatewayStopping",
    "Network",
    "Unsupported",
    "UpstreamBroken",
    "UpstreamBusy",
    "UpstreamError",
    "UpstreamTimeout",
    "UpstreamUnreachable",
]
