"""Which command does what, and what is said where one cannot run."""

import argparse
import sys
from collections.abc import Mapping

from auth import SigningKeyError
from store import JournalError

from . import command_line, commands, memory_command
from .dev import DevError
from .faults import ConfigurationError
from .listener import CannotListen
from .local_engine import LocalEngineError
from .start import find_variables, refusal_to_start

COMMANDS = {
    "serve": commands.serve,
    "dev": commands.dev,
    "token": commands.token,
    "keys": commands.keys,
    "check": commands.check,
    "usage": commands.usage,
    "memory": memory_command.memory,
}


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command of `options`. Returns the exit code."""
    try:
        variables = find_variables(environ, env_file=options.env_file, options=command_line.variables(options))
        return COMMANDS[options.command](variables, options)
    except ConfigurationError as exc:
        print(refusal_to_start(exc), file=sys.stderr)
        return 2
    except (CannotListen, DevError, JournalError, LocalEngineError, SigningKeyError) as exc:
        print(f"attach-gateway: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
