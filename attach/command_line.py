"""What can be typed after `attach-gateway`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from .version import __version__

DEV_USER = "dev"  # Whom the token that dev mode prints stands for.

_EXAMPLES = """\
examples:
  attach-gateway dev                       try it: an issuer, a model and a token of its own
  attach-gateway dev --demo                the same, and two agents at work on a page
  attach-gateway --port 8080               serve, with OIDC_ISSUER and OIDC_AUD in the environment or .env
  attach-gateway check                     say what it would run with, and whether issuer and engine answer
  attach-gateway token --user alice        another token for a gateway in dev mode
  attach-gateway keys rotate               a new key of the gateway's own signs from now on
  attach-gateway memory tail               what was asked and answered lately
  attach-gateway usage --days 7            who used how many tokens of which model
  attach-gateway COMMAND --help            everything about one command
"""

# Options that say the same as a variable, for one start.
_VARIABLES = {"host": "HOST", "port": "PORT", "log_level": "LOG_LEVEL", "log_format": "LOG_FORMAT"}

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options, with `command` the command's name: `serve` where none is given. Exits on what makes no sense."""
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "--version")):
        arguments = ["serve", *arguments]
    return _parser().parse_args(arguments)


def variables(options: argparse.Namespace) -> dict[str, str]:
    """The options that override variables, by the variable's name."""
    given = ((variable, getattr(options, option, None)) for option, variable in _VARIABLES.items())
    return {variable: value for variable, value in given if value is not None}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="attach-gateway",
        description="Verified identity, streaming and metering in front of any model server or agent.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"attach-gateway {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    _add_serve(commands)
    _add_dev(commands)
    token = _command(commands, "token", "mint a token for dev mode", "attach-gateway token --user alice")
    token.add_argument("--user", default=DEV_USER, metavar="NAME", help=f"whom it stands for (default {DEV_USER})")
    keys = _command(commands, "keys", "replace the key that the gateway signs with", "attach-gateway keys rotate")
    keys.add_argument("action", choices=["rotate"], help="a new key signs; the old one is believed for another day")
    usage = _command(commands, "usage", "show who used how many tokens", "attach-gateway usage --days 7 --user alice")
    usage.add_argument("--user", metavar="NAME", help="of this user only")
    usage.add_argument("--days", type=_count, default=30, metavar="N", help="today and the days before (default 30)")
    _command(commands, "check", "show the settings in force and what answers", "attach-gateway check")
    _add_memory(commands)
    return parser


def _add_serve(commands: _Commands) -> None:
    serve = _command(commands, "serve", "run the gateway (the default)", "attach-gateway --port 8080 --workers 2")
    _add_listening(serve)
    serve.add_argument("--workers", type=_count, default=1, metavar="N", help="processes on the same port (default 1)")
    serve.add_argument("--listen-fd", type=int, action="append", default=[], help=argparse.SUPPRESS)
    serve.add_argument("--parent-fd", type=int, help=argparse.SUPPRESS)
    serve.add_argument("--metrics-dir", type=Path, help=argparse.SUPPRESS)


def _add_dev(commands: _Commands) -> None:
    dev = _command(commands, "dev", "try it here: own issuer, own model, one token", "attach-gateway dev --port 8080")
    _add_listening(dev)
    dev.add_argument("--demo", action="store_true", help="with two agents, and a page to watch them at work")
    dev.add_argument("--workers", type=_count, default=1, help=argparse.SUPPRESS)


def _add_memory(commands: _Commands) -> None:
    memory = _command(
        commands, "memory", "show what is remembered, out of the store", "attach-gateway memory search turtles"
    )
    memory.add_argument("action", choices=["tail", "search", "export"], help="the last events; some words; everything")
    memory.add_argument("words", nargs="*", metavar="WORD", help="what `search` looks for")
    memory.add_argument("--user", metavar="NAME", help="this user's only")
    memory.add_argument("--limit", type=_count, default=20, metavar="N", help="how many events (default 20)")
    memory.add_argument("--json", action="store_true", help="an event a line, as `export` always does")


def _command(commands: _Commands, name: str, about: str, example: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=about, description=f"{about[0].upper()}{about[1:]}.", epilog=f"example: {example}"
    )
    parser.add_argument("--env-file", metavar="FILE", help="read settings from FILE (default: .env, if it is there)")
    return parser


def _add_listening(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", help="address to listen on (HOST, default 127.0.0.1)")
    parser.add_argument("--port", help="port to listen on (PORT, default 8080)")
    parser.add_argument("--log-level", metavar="LEVEL", help="debug, info, warning or error (LOG_LEVEL)")
    parser.add_argument("--log-format", metavar="FORMAT", help="text or json (LOG_FORMAT)")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"takes 1 or more, not {text!r}")
    return int(text)
