"""Work done in another process while this one goes on with what came of it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import TypeVar

T = TypeVar("T")


def made_elsewhere(make: Callable[[], Iterable[T]]) -> Iterator[T]:
    """What `make` gives in a process of its own, which ends with this one. Raises `EOFError` where it failed.

    `make` and what it gives must be picklable: the process is a new one, since a copy of this may have threads in it.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    maker = context.Process(target=_send, args=(make, theirs), daemon=True)
    maker.start()
    theirs.close()
    try:
        while (message := ours.recv()) is not None:
            yield message[0]
    finally:
        maker.kill()
        maker.join()


def _send(make: Callable[[], Iterable[T]], sink: Connection) -> None:
    for made in make():
        sink.send((made,))
    sink.send(None)
