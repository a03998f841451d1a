"""Which command does what, and what is said where one cannot run."""

import argparse
import pkgutil
import sys
from collections.abc import Callable, Mapping
from typing import TypeAlias

from auth import SigningKeyError
from store import JournalError

from . import command_line
from .faults import CannotRun, ConfigurationError
from .start import find_variables, refusal_to_start

Command: TypeAlias = Callable[[Mapping[str, str], argparse.Namespace], int]

COMMANDS = {
    "serve": "attach.serve:serve",
    "dev": "attach.commands:dev",
    "token": "attach.commands:token",
    "keys": "attach.commands:keys",
    "check": "attach.commands:check",
    "usage": "attach.commands:usage",
    "memory": "attach.memory_command:memory",
}


def command_named(name: str) -> Command:
    """One of `COMMANDS`, with all that it needs imported."""
    command: Command = pkgutil.resolve_name(COMMANDS[name])
    return command


def run(command: Command, options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run a command as `options` say. Returns the exit code."""
    try:
        variables = find_variables(environ, env_file=options.env_file, options=command_line.variables(options))
        return command(variables, options)
    except ConfigurationError as exc:
        print(refusal_to_start(exc), file=sys.stderr)
        return 2
    except (CannotRun, JournalError, SigningKeyError) as exc:
        print(f"attach-gateway: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
