"""Several processes on one listening socket, none of which outlives the one that started them."""

import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from .lifeline import Lifeline

logger = logging.getLogger(__name__)

_SHORT_LIFE = 5.0
_MOST_SHORT_LIVES = 5
_POLL_SECONDS = 0.1


class Workers:
    """Start `count` workers by `command`, start another for each that dies, and stop them all with this process.

    Each worker is told the listening socket and the read end of a pipe (`--listen-fd`, `--parent-fd`); the pipe closes
    when this process goes, however it goes. SIGTERM and SIGINT are handed on and every worker drains.
    """

    def __init__(self, command: Sequence[str], *, count: int, listener: socket.socket) -> None:
        self._command = command
        self._count = count
        self._listener = listener
        self._workers: dict[subprocess.Popen[bytes], float] = {}
        self._stopping = False
        self._short_lives = 0

    def run(self) -> int:
        """Serve until told to stop. Returns the exit code: 0, or 1 if workers keep dying as they start."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hand_on)
        with Lifeline() as lifeline:
            for _ in range(self._count):
                self._start(lifeline)
            while self._workers:
                time.sleep(_POLL_SECONDS)
                self._replace_dead(lifeline)
        return 1 if self._short_lives >= _MOST_SHORT_LIVES else 0

    def _start(self, lifeline: Lifeline) -> None:
        fds = (self._listener.fileno(), lifeline.child_fd)
        command = [*self._command, "--listen-fd", str(fds[0]), "--parent-fd", str(fds[1])]
        self._workers[subprocess.Popen(command, pass_fds=fds, start_new_session=True)] = time.monotonic()  # noqa: S603

    def _replace_dead(self, lifeline: Lifeline) -> None:
        for worker, started in list(self._workers.items()):
            if worker.poll() is None:
                continue
            del self._workers[worker]
            if self._stopping:
                continue
            logger.error("worker.died", extra={"pid": worker.pid, "status": worker.returncode})
            if time.monotonic() - started < _SHORT_LIFE:
                self._short_lives += 1
            else:
                self._short_lives = 0
            if self._short_lives >= _MOST_SHORT_LIVES:
                logger.error("worker.given_up", extra={"mend": "the lines above say why workers end as they start"})
                self._hand_on(signal.SIGTERM, None)
            else:
                self._start(lifeline)

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True
        for worker in self._workers:
            worker.send_signal(number)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket that workers inherit. Raises `OSError` when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    listener.set_inheritable(True)
    return listener


def worker_command(arguments: Sequence[str]) -> list[str]:
    """How this very program is started again, with the same arguments."""
    return [sys.executable, "-m", "attach", *arguments]
