"""Where a name leads, and whether a call may go there."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence

from .tasks import TargetNotAllowed

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

RESOLVE_SECONDS = 5.0
MOST_ADDRESSES = 8

# Where clouds answer with their machines' credentials, and which no range below holds.
_METADATA = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "168.63.129.16", "fd00:ec2::254")))
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Unresolvable(Exception):
    """The name leads nowhere at the moment."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of `host`, as the machine knows them, in the order to try them. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def checked_addresses(host: str, port: int, resolve: Resolve) -> tuple[str, ...]:
    """The addresses of a host that the operator listed, none of them one where only a literal may lead.

    Private ones are the operator's own business. What a machine answers for itself (link-local, cloud metadata) is not
    meant by any name, however it is written.

    Raises:
        TargetNotAllowed: It leads to such a place.
        Unresolvable: It leads nowhere.
    """
    if literal(host) is not None:
        return (host,)
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = tuple(await resolve(host, port))[:MOST_ADDRESSES]
    except (OSError, TimeoutError, UnicodeError) as error:
        raise Unresolvable from error
    if not found:
        raise Unresolvable
    if any((address := literal(text)) is None or is_special(address) for text in found):
        raise TargetNotAllowed
    return found


def literal(host: str) -> IPAddress | None:
    """The address that `host` is, if it is one and no name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_special(address: IPAddress) -> bool:
    """Whether only a literal may lead there; IPv4 within IPv6 is what it means (RFC 4291 §2.5.5.2, 6052, 3056)."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return True
        if (inner := _inner(address)) is not None:
            return is_special(inner)
    return (
        address in _METADATA
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address == ipaddress.ip_address("255.255.255.255")
    )


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.sixtofour
