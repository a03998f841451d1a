"""One of the demo's agents, as a child process of the gateway: `python -m attach.demo_agent NAME ...`."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from socket import socket

import uvicorn

from .demo import DEMO_AGENTS, demo_folder
from .lifeline import watch_parent_from_thread


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the agent until the other end of `--parent-fd` closes."""
    parser = argparse.ArgumentParser(prog="python -m attach.demo_agent", description=__doc__)
    parser.add_argument("name", choices=list(DEMO_AGENTS))
    parser.add_argument("--listen-fd", type=int, required=True)
    parser.add_argument("--parent-fd", type=int, required=True)
    parser.add_argument("--gateway", required=True, help="where it calls back")
    parser.add_argument("--model", default="", help="what it asks for there")
    options = parser.parse_args(arguments)
    watch_parent_from_thread(options.parent_fd)
    # They are written to be run and read alone, each as a script.
    sys.path.insert(0, str(demo_folder() / "agents"))
    client = importlib.import_module("gateway_client")
    client.GATEWAY, client.MODEL = options.gateway, options.model  # type: ignore[attr-defined]
    app = importlib.import_module(options.name).app
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, ws="none"))
    server.run(sockets=[socket(fileno=options.listen_fd)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
