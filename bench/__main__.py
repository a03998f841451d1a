"""`script/bench`: the table, or one of the other commands."""

import pkgutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType

from .build import CannotBuild
from .machine import TooFewCores
from .registry import UnknownRow

COMMANDS: Mapping[str, str] = {
    "table": "bench.compare:main",
    "memory": "bench.memory:main",
    "soak": "bench.soak:main",
    "verification": "bench.verification:main",
    "workers": "bench.workers:main",
    "install": "bench.install:main",
}


def main(arguments: Sequence[str]) -> int:
    """Run the command that is named first, or the table. Returns its exit code."""
    if not sys.platform.startswith("linux"):
        print("script/bench: it reads /proc and uses epoll: Linux is needed", file=sys.stderr)
        return 2
    name, rest = (arguments[0], arguments[1:]) if arguments and arguments[0] in COMMANDS else ("table", arguments)
    command: Callable[[Sequence[str]], int] = pkgutil.resolve_name(COMMANDS[name])
    signal.signal(signal.SIGTERM, _end)
    try:
        return command(rest)
    except (CannotBuild, TooFewCores, UnknownRow) as fault:
        print(f"script/bench: {fault}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _end(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends us as Ctrl-C does: through every `with`, so that what was started is stopped."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
