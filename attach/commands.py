"""What the commands beside `serve` do. All take the variables in force, and return the exit code."""

import argparse
import asyncio
import sys
from collections.abc import Mapping

from auth import KeyFolder, SigningKeyError

from .allocator import keep_less
from .check import effective, report
from .dev import mint, refuse_unsafe
from .dev_server import serve_dev
from .listener import listen
from .server import loop_factory
from .settings import Settings
from .usage_table import usage_table


def dev(variables: Mapping[str, str], options: argparse.Namespace) -> int:
    """Run a gateway that needs no settings, for this machine alone."""
    settings = Settings.for_dev(variables)
    refuse_unsafe(host=settings.server.host, workers=options.workers)
    listener = listen(settings.server.host, settings.server.port)
    keep_less()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(serve_dev(settings, listener, demo=options.demo))


def token(variables: Mapping[str, str], options: argparse.Namespace) -> int:
    """Print a token for dev mode."""
    print(mint(Settings.for_dev(variables).data_dir, options.user))
    return 0


def keys(variables: Mapping[str, str], options: argparse.Namespace) -> int:
    """Rotate the key that the gateway signs with, whether one runs or not."""
    settings = Settings.for_dev(variables)
    if settings.signing_key is not None:
        raise SigningKeyError(
            "the key is in ATTACH_SIGNING_KEY: put a new one before it there, and keep the old for a day"
        )
    print(f"Signing from now on: {KeyFolder(settings.data_dir).rotate().kid}")
    return 0


def usage(variables: Mapping[str, str], options: argparse.Namespace) -> int:
    """Print who used what."""
    settings = Settings.for_dev(variables)
    print(asyncio.run(usage_table(settings.data_dir, user=options.user, days=options.days)))
    if not settings.usage.backends and settings.quota is None:
        print("With these settings nothing is metered: set USAGE_METERING or MAX_TOKENS_PER_MIN.", file=sys.stderr)
    return 0


def check(variables: Mapping[str, str], options: argparse.Namespace) -> int:
    """Print what a gateway would run with; 1 unless all that it needs is there."""
    print(effective(variables), flush=True)
    text, all_there = asyncio.run(report(Settings.from_environ(variables)))
    print(text)
    return 0 if all_there else 1
