"""`attach-gateway serve`."""

import argparse
from collections.abc import Mapping
from socket import socket

from .allocator import keep_less
from .gateway import create_app
from .listener import listen, listen_each
from .server import build_server, spare_the_collector
from .settings import Settings
from .workers import Workers


def serve(variables: Mapping[str, str], options: argparse.Namespace) -> int:
    """Run the gateway, in this process or in several; as one of those if it is told listening sockets."""
    settings = Settings.from_environ(variables)
    address = settings.server.host, settings.server.port
    if options.workers > 1:
        return Workers(variables, listeners=listen_each(*address, options.workers)).run()
    own, *others = [socket(fileno=fd) for fd in options.listen_fd] or [listen(*address)]
    keep_less()
    app = create_app(settings, metrics_dir=options.metrics_dir)
    spare_the_collector()
    build_server(app, settings.server, others=others, parent_fd=options.parent_fd).run(sockets=[own])
    return 0
