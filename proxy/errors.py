"""What can go wrong between the gateway and an upstream."""

import httpx

from wire import Refusal


class UpstreamError(Exception):
    """An upstream did not answer as it should.

    UpstreamError
    ├── UpstreamUnreachable   no connection: refused, unknown name, TLS not agreed
    ├── UpstreamBusy          every connection that may be open is in use
    ├── UpstreamTimeout       connected, or trying to, and silent past the limit
    └── UpstreamBroken        what it sent is not HTTP, or ends in the middle
    """


class UpstreamUnreachable(UpstreamError):
    """No connection could be made."""


class UpstreamBusy(UpstreamError):
    """All connections to it are in use."""


class UpstreamTimeout(UpstreamError):
    """It was silent for longer than its limit."""


class UpstreamBroken(UpstreamError):
    """Its answer is malformed or was cut."""

    def __init__(self) -> None:
        super().__init__("The engine broke off or sent what is not HTTP.")


class ClientLeft(Exception):
    """The client closed its connection before it had its answer; nobody is there to be told."""


class Unsupported(Exception):
    """The request asks for a part of HTTP that this gateway leaves out."""


class GatewayStopping(Exception):
    """The gateway is being stopped and this exchange has used up its grace."""


class ExchangeEnded(Exception):
    """The gateway ended this exchange; `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


def upstream_error(exc: httpx.TransportError) -> UpstreamError:
    """What happened, in our words; to be raised from `exc`."""
    match exc:
        case httpx.PoolTimeout():
            return UpstreamBusy("The engine has no connection free: try again.")
        case httpx.TimeoutException():
            return UpstreamTimeout("The engine was silent for too long.")
        case httpx.ConnectError() | httpx.UnsupportedProtocol():
            return UpstreamUnreachable("The engine cannot be reached.")
    return UpstreamBroken()
