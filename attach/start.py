"""The first thing that any start does: find the settings, and say so where they cannot be run with."""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path

from .env_file import EnvFile
from .environment import Environment
from .faults import ConfigurationError
from .log_format import configure_logging
from .settings import LOG_FORMATS, LOG_LEVELS, Settings

logger = logging.getLogger(__name__)


def find_variables(
    environ: Mapping[str, str], *, env_file: str | Path | None = None, options: Mapping[str, str] | None = None
) -> dict[str, str]:
    """`options` over `environ` over what the `EnvFile` at `env_file` sets. Logs from here on look as they say.

    Raises:
        ConfigurationError: The file cannot be read.
    """
    file = EnvFile.read(env_file)
    variables = {**file.variables(), **environ, **(options or {})}
    lenient = Environment(variables)  # whoever reads the settings tells what is wrong with them
    configure_logging(lenient.choice("LOG_LEVEL", LOG_LEVELS), lenient.choice("LOG_FORMAT", LOG_FORMATS))
    for name, meant in file.near_misses().items():
        logger.warning("settings.unread", extra={"file": str(file.path), "variable": name, "did_you_mean": meant})
    return variables


def settings_or_exit(environ: Mapping[str, str], *, env_file: str | Path | None = None) -> Settings:
    """The settings of a serving gateway, for a program's start; its log is set up on the way.

    Raises:
        SystemExit: With the whole list of faults and how to mend them.
    """
    try:
        return Settings.from_environ(find_variables(environ, env_file=env_file))
    except ConfigurationError as exc:
        print(refusal_to_start(exc), file=sys.stderr)  # noqa: T201 - the program ends here
        raise SystemExit(2) from None


def refusal_to_start(exc: ConfigurationError) -> str:
    """What an operator reads instead of a traceback."""
    lines = ["The gateway cannot start with these settings. Mend them in the environment or in .env:", str(exc)]
    if any(fault.name.startswith("OIDC_") for fault in exc.faults):
        lines.append("To try it without any of them: attach-gateway dev")
    return "\n".join(lines)
