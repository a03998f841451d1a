"""The socket that a gateway listens on."""

import errno
import os
import socket
import sys

from .faults import CannotRun


class CannotListen(CannotRun):
    """The address cannot be had. `str()` says why, and the mend."""


_MENDS = {
    errno.EADDRINUSE: "stop what uses it, or choose another port (--port, PORT)",
    errno.EACCES: "ports below 1024 take a privilege: choose a higher one (--port, PORT)",
}


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A listening socket; port 0 is one that is free. A `shared` one may be beside others like it.

    Raises:
        CannotListen: Not there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048, reuse_port=shared)
    except OSError as exc:
        problem = "No such host" if isinstance(exc, socket.gaierror) else os.strerror(exc.errno or 0)
        mend = _MENDS.get(exc.errno or 0, "give an address of this machine (--host, HOST)")
        raise CannotListen(f"cannot listen on {_joined(host, port)}: {problem}; {mend}") from exc


def listen_each(host: str, port: int, count: int) -> list[socket.socket]:
    """A listening socket on the same port for each of `count` processes, whose callers the kernel gives out evenly.

    Of one that they share, whoever is idle when many callers come takes all of them, and keeps them. Where the kernel
    gives out nothing, it is one socket, `count` times.

    Raises:
        CannotListen: As `listen`; also where it is somebody else who shares it.
    """
    alone = listen(host, port)
    if not sys.platform.startswith("linux"):
        return [alone] * count
    found = alone.getsockname()[1]
    alone.close()
    return [listen(host, found, shared=True) for _ in range(count)]


def address_of(listener: socket.socket) -> str:
    """`host:port` as it stands in a URL."""
    host, port = listener.getsockname()[:2]
    return _joined(host, port)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
