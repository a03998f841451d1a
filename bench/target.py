"""A row that runs: started on a port, asked until it answers, checked for what it refuses, stopped."""

import http.client
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp

from .bed import Bed, free_port
from .load import CHAT, chat
from .processes import Process
from .rows import Row


class NotAnswering(RuntimeError):
    """A row did not start; the text says what its log says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where load goes. `process` is None for the engine itself; `cold_start` is in seconds."""

    row: Row
    port: int
    tokens: Sequence[str]
    process: Process | None
    cold_start: float | None


@contextmanager
def started(row: Row, bed: Bed, *, cores: Sequence[int] = (), options: Sequence[str] = ()) -> Iterator[Target]:
    """The row on its core, or on `cores`, once it has answered one request with the engine's answer.

    Raises:
        NotAnswering: It ended, or did not answer within `row.start_seconds`.
    """
    tokens = row.tokens(bed)
    if row.command is None:
        yield Target(row=row, port=bed.engine_port, tokens=tokens, process=None, cold_start=None)
        return
    port, folder = free_port(), Path(mkdtemp(prefix=f"{row.name}-", dir=bed.folder))
    command = row.command(bed, port, folder)
    command = replace(command, argv=[*command.argv, *options])
    begun = time.monotonic()
    with Process(command, cores=cores or [bed.cores.proxy], log=folder / "log") as process:
        _wait_for_an_answer(row, process, port, tokens[0])
        cold_start = time.monotonic() - begun
        yield Target(row=row, port=port, tokens=tokens, process=process, cold_start=cold_start)


def refusals_missing(target: Target, bed: Bed) -> list[str]:
    """Which hostile tokens reached the engine or were answered with success, though the row should refuse them."""
    hostile = bed.issuer.hostile_tokens()
    return [what for what in sorted(target.row.refuses) if _gets_through(target, bed, hostile[what])]


def status_of(port: int, token: str | None, *, timeout: float = 10) -> int:
    """The status of one chat completion; 0 when there was no answer."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", CHAT, chat("bench"), headers)
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
    return answer.status


def _gets_through(target: Target, bed: Bed, token: str | None) -> bool:
    before = bed.stats()["requests"]
    return status_of(target.port, token) // 100 not in {4, 5} or bed.stats()["requests"] != before


def _wait_for_an_answer(row: Row, process: Process, port: int, token: str) -> None:
    end = time.monotonic() + row.start_seconds
    status = 0
    while status != 200:
        if not process.running():
            raise NotAnswering(f"ended while starting: {process.last_words()}")
        if time.monotonic() > end:
            said = f"last status {status}, {process.last_words()}"
            raise NotAnswering(f"no answer within {row.start_seconds:g} s: {said}")
        time.sleep(0.002)
        status = status_of(port, token)
