"""The `attach-gateway` command."""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from socket import socket

from auth import SigningKeyError

from .check import effective, report
from .dev import DEV_USER, DevError, mint, refuse_unsafe
from .dev_server import serve_dev
from .environment import ConfigurationError, read_environ
from .gateway import create_app
from .local_engine import LocalEngineError
from .log_format import configure_logging
from .server import build_server, loop_factory
from .settings import Settings, refusal_to_start
from .version import __version__
from .workers import Workers, listen, worker_command

_EXAMPLES = """\
examples:
  attach-gateway dev                       try it: an issuer, a model and a token of its own
  attach-gateway --port 8080               serve, with OIDC_ISSUER and OIDC_AUD in the environment or .env
  attach-gateway check                     say what it would run with, and whether issuer and engine answer
  attach-gateway token --user alice        another token for a gateway in dev mode
  attach-gateway COMMAND --help            everything about one command
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; `serve` where none is named. Returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help", "--version")):
        given.insert(0, "serve")
    options = _parser().parse_args(given)
    command: Callable[[argparse.Namespace, list[str]], int] = options.command
    try:
        return command(options, given)
    except ConfigurationError as exc:
        print(refusal_to_start(exc), file=sys.stderr)
        return 2
    except (DevError, LocalEngineError, SigningKeyError) as exc:
        print(f"attach-gateway: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="attach-gateway",
        description="Verified identity, streaming and metering in front of any model server or agent.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"attach-gateway {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    serve = _command(
        commands, "serve", _serve, "run the gateway (the default)", "attach-gateway --port 8080 --workers 2"
    )
    _add_listening(serve)
    serve.add_argument("--workers", type=int, default=1, metavar="N", help="processes on the same port (default 1)")
    serve.add_argument("--listen-fd", type=int, help=argparse.SUPPRESS)
    serve.add_argument("--parent-fd", type=int, help=argparse.SUPPRESS)

    dev = _command(
        commands, "dev", _dev, "try it here: own issuer, own model, one token", "attach-gateway dev --port 8080"
    )
    _add_listening(dev)
    dev.add_argument("--workers", type=int, default=1, help=argparse.SUPPRESS)

    token = _command(commands, "token", _token, "mint a token for dev mode", "attach-gateway token --user alice")
    token.add_argument("--user", default=DEV_USER, metavar="NAME", help="whom it stands for (default dev)")

    _command(commands, "check", _check, "show the settings in force and what answers", "attach-gateway check")
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace, list[str]], int],
    about: str,
    example: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=about, description=f"{about[0].upper()}{about[1:]}.", epilog=f"example: {example}"
    )
    parser.set_defaults(command=run)
    parser.add_argument("--env-file", default=".env", metavar="FILE", help="read settings from FILE too (default .env)")
    return parser


def _add_listening(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", help="address to listen on (HOST, default 127.0.0.1)")
    parser.add_argument("--port", help="port to listen on (PORT, default 8080)")
    parser.add_argument("--log-level", metavar="LEVEL", help="debug, info, warning or error (LOG_LEVEL)")
    parser.add_argument("--log-format", metavar="FORMAT", help="text or json (LOG_FORMAT)")


def _environ(options: argparse.Namespace) -> dict[str, str]:
    """The environment under the options: what is given on the command line counts most."""
    environ = read_environ(os.environ, env_file=options.env_file)
    for option, variable in (
        ("host", "HOST"),
        ("port", "PORT"),
        ("log_level", "LOG_LEVEL"),
        ("log_format", "LOG_FORMAT"),
    ):
        if (value := getattr(options, option, None)) is not None:
            environ[variable] = value
    return environ


def _serve(options: argparse.Namespace, given: list[str]) -> int:
    settings = Settings.from_environ(_environ(options))
    configure_logging(settings.server.log_level, settings.server.log_format)
    if options.workers < 1:
        print("attach-gateway: --workers takes 1 or more", file=sys.stderr)
        return 2
    try:
        listener = (
            socket(fileno=options.listen_fd)
            if options.listen_fd
            else listen(settings.server.host, settings.server.port)
        )
    except OSError as exc:
        print(_cannot_listen(settings, exc), file=sys.stderr)
        return 1
    if options.workers > 1 and options.listen_fd is None:
        return Workers(worker_command(given), count=options.workers, listener=listener).run()
    app = create_app(settings)
    build_server(app, settings.server, parent_fd=options.parent_fd).run(sockets=[listener])
    return 0


def _dev(options: argparse.Namespace, given: list[str]) -> int:
    settings = Settings.for_dev(_environ(options))
    configure_logging(settings.server.log_level, settings.server.log_format)
    refuse_unsafe(host=settings.server.host, workers=options.workers)
    try:
        listener = listen(settings.server.host, settings.server.port)
    except OSError as exc:
        print(_cannot_listen(settings, exc), file=sys.stderr)
        return 1
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(serve_dev(settings, listener))


def _token(options: argparse.Namespace, given: list[str]) -> int:
    settings = Settings.for_dev(_environ(options))
    print(mint(settings.data_dir, options.user))
    return 0


def _cannot_listen(settings: Settings, exc: OSError) -> str:
    where = f"{settings.server.host}:{settings.server.port}"
    return f"attach-gateway: cannot listen on {where} ({exc.strerror}): stop what uses it, or choose another --port"


def _check(options: argparse.Namespace, given: list[str]) -> int:
    environ = _environ(options)
    print(effective(environ))
    settings = Settings.from_environ(environ)
    configure_logging(settings.server.log_level, settings.server.log_format)
    text, all_there = asyncio.run(report(settings))
    print(text)
    return 0 if all_there else 1


if __name__ == "__main__":
    sys.exit(main())
