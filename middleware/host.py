"""Which `Host` a gateway that only its own machine may use answers to."""

import re
from ipaddress import AddressValueError, IPv4Address, IPv4Network

from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = IPv4Network("127.0.0.0/8")

# RFC 9110 §7.2: uri-host [ ":" port ], an IPv6 address in brackets.
_HOST = re.compile(r"(?P<name>\[::1\]|[^\[\]:]+)(?::[0-9]*)?")


class HostError(Exception):
    """A request is addressed to a name that this gateway does not have.

    HostError
    └── ForeignHost: 403, the name is not one of this machine's own
    """


class ForeignHost(HostError):
    def __init__(self) -> None:
        super().__init__("This gateway answers only to localhost, 127.0.0.1 and [::1].")


class LoopbackHostMiddleware:
    """Answer only requests that are addressed to this machine by a loopback name.

    A page from elsewhere can have its own name resolve to 127.0.0.1 (DNS rebinding); it then reads answers as if it
    were from here, but its requests still carry the foreign name. Raises `ForeignHost`, also where there is no `Host`
    or more than one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"}:
            hosts = [value for name, value in scope["headers"] if name == b"host"]
            if len(hosts) != 1 or not is_loopback_host(hosts[0].decode("latin-1")):
                raise ForeignHost
        await self.app(scope, receive, send)


def is_loopback_host(host: str) -> bool:
    """Whether a `Host` field names this machine: localhost, an address of 127.0.0.0/8 or [::1], with any port."""
    match = _HOST.fullmatch(host)
    return match is not None and (match["name"] == "[::1]" or is_loopback_name(match["name"]))


def is_loopback_name(name: str) -> bool:
    """Whether binding to `name`, a host name or an address without brackets, is open to this machine only."""
    try:
        return name.lower() in {"localhost", "::1"} or IPv4Address(name) in LOOPBACK
    except AddressValueError:
        return False
