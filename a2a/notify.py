"""Where agents may be told to send push notifications: they call from inside, wherever a caller says."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import SplitResult, unquote, urlsplit

_PORTS = {"http": 80, "https": 443}


def may_notify(url: str, allowed: Sequence[str]) -> bool:
    """Whether `url` is one of `allowed` or below one, as scheme, host, port and whole segments of the path.

    An agent resolves the name itself, so that only names and addresses an operator listed can be called.
    """
    wanted = _parts(url)
    if wanted is None:
        return False
    return any((listed := _parts(entry)) is not None and _is_below(wanted, listed) for entry in allowed)


def _is_below(wanted: SplitResult, listed: SplitResult) -> bool:
    if (wanted.scheme, _host(wanted), _port(wanted)) != (listed.scheme, _host(listed), _port(listed)):
        return False
    base = [segment for segment in listed.path.split("/") if segment]
    return [segment for segment in wanted.path.split("/") if segment][: len(base)] == base


def _parts(url: str) -> SplitResult | None:
    if not url.isascii() or any(c.isspace() or not c.isprintable() for c in url) or "\\" in url:
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    segments = unquote(parts.path).split("/")
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc or {".", ".."} & set(segments):
        return None
    return parts


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").lower().rstrip(".")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host


def _port(parts: SplitResult) -> int:
    return parts.port or _PORTS[parts.scheme]
