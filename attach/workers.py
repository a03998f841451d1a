"""Several processes on one port, none of which outlives the one that started them."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from tempfile import TemporaryDirectory
from types import FrameType
from typing import NamedTuple

from .lifeline import Lifeline

logger = logging.getLogger(__name__)

_SHORT_LIFE = 5.0
_MOST_SHORT_LIVES = 5
_POLL_SECONDS = 0.1


class _Place(NamedTuple):
    """Where a worker listens, and since when by time.monotonic."""

    listener: socket.socket
    since: float


class Workers:
    """Start a worker for each listener, start another for each that dies, and stop them all with this process.

    Each worker is told its own listening socket, those of the others (`--listen-fd`), and the read end of a pipe
    (`--parent-fd`) that closes when this process goes, however it goes. Every signal to stop is handed on as SIGTERM,
    for the workers to drain.

    Args:
        variables: What the settings are read from, in each worker as in this process.
        listeners: As `listen_each` makes them.
    """

    def __init__(self, variables: Mapping[str, str], *, listeners: Sequence[socket.socket]) -> None:
        self._environ = worker_environ(variables)
        self._listeners = listeners
        self._workers: dict[subprocess.Popen[bytes], _Place] = {}
        self._stops_asked = self._stops_handed_on = 0
        self._short_lives = 0
        self._metrics_dir = ""

    def run(self) -> int:
        """Serve until told to stop. Returns the exit code: 0, or 1 if workers keep dying as they start."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_to_stop)
        # Where they count together; what a worker counted stays there when it dies.
        with Lifeline() as lifeline, TemporaryDirectory(prefix="attach-metrics-") as metrics_dir:
            self._metrics_dir = metrics_dir
            for listener in self._listeners:
                self._start(listener, lifeline)
            while self._workers:
                time.sleep(_POLL_SECONDS)
                self._replace_dead(lifeline)
                self._hand_on_stops()
        return 1 if self._short_lives >= _MOST_SHORT_LIVES else 0

    def _start(self, listener: socket.socket, lifeline: Lifeline) -> None:
        listen_fds = dict.fromkeys(each.fileno() for each in (listener, *self._listeners))  # its own comes first
        fds = (*listen_fds, lifeline.child_fd)
        options = [word for fd in listen_fds for word in ("--listen-fd", str(fd))]
        options += ["--parent-fd", str(lifeline.child_fd), "--metrics-dir", self._metrics_dir]
        command = [*_WORKER, *options]
        # A session of its own: Ctrl-C is for the parent, which hands it on.
        worker = subprocess.Popen(command, pass_fds=fds, env=self._environ, start_new_session=True)  # noqa: S603
        self._workers[worker] = _Place(listener, time.monotonic())

    def _replace_dead(self, lifeline: Lifeline) -> None:
        for worker, place in list(self._workers.items()):
            if worker.poll() is None:
                continue
            del self._workers[worker]
            if self._stops_asked:
                continue
            logger.error("worker.died", extra={"pid": worker.pid, "status": worker.returncode})
            self._short_lives = self._short_lives + 1 if time.monotonic() - place.since < _SHORT_LIFE else 0
            if self._short_lives >= _MOST_SHORT_LIVES:
                logger.error("worker.given_up", extra={"mend": "the lines above say why workers end as they start"})
                self._stops_asked += 1
            else:
                self._start(place.listener, lifeline)

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        self._stops_asked += 1

    def _hand_on_stops(self) -> None:
        if self._stops_asked:
            for listener in self._listeners:
                listener.close()  # the workers' copies are enough; with ours, callers would queue for nobody
        while self._stops_handed_on < self._stops_asked:
            self._stops_handed_on += 1
            for worker in self._workers:
                worker.send_signal(signal.SIGTERM)


# -P: the folder it runs in is no place to import from; ours are plain names, such as `auth`, that others have too.
_WORKER = (sys.executable, "-P", "-m", "attach", "serve", "--env-file", os.devnull)


def worker_environ(variables: Mapping[str, str]) -> dict[str, str]:
    """`variables`, and where this process imports from."""
    return {**variables, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
