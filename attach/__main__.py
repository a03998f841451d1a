"""The `attach-gateway` command."""

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from . import command_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; `serve` where none is named. Returns the exit code: 2 for what must be set otherwise."""
    options = command_line.parse(sys.argv[1:] if arguments is None else arguments)
    with _no_collecting():
        from .run import command_named, run  # noqa: PLC0415 - nearly everything, which `--help` does not need

        command = command_named(options.command)
    return run(command, options, os.environ)


@contextmanager
def _no_collecting() -> Iterator[None]:
    """Keep the garbage collector from looking again and again at what is imported, a tenth of the time that takes."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


if __name__ == "__main__":
    sys.exit(main())
