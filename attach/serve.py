"""`attach-gateway serve`."""

import argparse
from collections.abc import Mapping
from socket import socket

from .allocator import keep_less
from .gateway import create_app
from .listener import listen
from .server import build_server, spare_the_collector
from .settings import Settings
from .workers import Workers


def serve(variables: Mapping[str, str], options: argparse.Namespace) -> int:
    """Run the gateway, in this process or in several; as one of those if it is told a listening socket."""
    settings = Settings.from_environ(variables)
    if options.listen_fd is not None:
        listener = socket(fileno=options.listen_fd)
    else:
        listener = listen(settings.server.host, settings.server.port)
        if options.workers > 1:
            return Workers(variables, count=options.workers, listener=listener).run()
    keep_less()
    app = create_app(settings, metrics_dir=options.metrics_dir)
    spare_the_collector()
    build_server(app, settings.server, parent_fd=options.parent_fd).run(sockets=[listener])
    return 0
