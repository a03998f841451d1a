"""Numbers that other processes of this machine can read as they change, at the price of an addition."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import secrets
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

CELLS = 2**18
MOST_IN_KEY = 32
_BYTES = CELLS * 8
Key = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Reading:
    """What one process counted under one key, and whether that process still runs."""

    key: Key
    values: tuple[float, ...]
    alive: bool


class Cells:
    """A fixed number of floats. A key has some of them, one after the other, from when it is first asked for.

    `values[start] += 1` is how to count. When all are given away new keys get the first ones, which mean nothing.

    Before `share`, they are this process's own, in a list: an addition there costs a fifth. After it they are in two
    files, which survive its end and which the other processes that share the directory read. A number is written whole,
    so that nobody reads half of one.
    """

    def __init__(self) -> None:
        self.values: list[float] | memoryview[float] = [0.0] * MOST_IN_KEY
        self._starts: dict[Key, tuple[int, int]] = {}
        self._next = MOST_IN_KEY
        self._directory: Path | None = None
        self._names: BinaryIO | None = None

    def start(self, key: Key, count: int = 1) -> int:
        """Where the `count` cells of `key` begin; `count` is 32 at most, and the same for a key each time."""
        known = self._starts.get(key)
        if known is not None:
            return known[0]
        if self._next + count > CELLS:
            return 0
        start, self._next = self._next, self._next + count
        self._starts[key] = (start, count)
        if isinstance(self.values, list):
            self.values += [0.0] * count
        self._tell(key, start, count)
        return start

    def share(self, directory: Path) -> None:
        """Keep everything, from now on and what was counted so far, where the others of `directory` can read it."""
        stem = secrets.token_hex(8)
        numbers = os.open(directory / f"{stem}.cells", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(numbers, _BYTES)
            values = memoryview(mmap.mmap(numbers, _BYTES)).cast("d")
        finally:
            os.close(numbers)
        values[: self._next] = array("d", self.values[: self._next])
        self.values = values
        self._directory = directory
        self._names = (directory / f"{stem}.names").open("xb", buffering=0)
        fcntl.flock(self._names, fcntl.LOCK_EX)  # Held until this process ends: how the others know that it runs.
        for key, (start, count) in self._starts.items():
            self._tell(key, start, count)

    @property
    def shared(self) -> bool:
        return self._directory is not None

    def readings(self) -> Iterator[Reading]:
        """What this process and those that it shares with have counted."""
        if self._directory is None:
            for key, (start, count) in list(self._starts.items()):  # Others may come meanwhile: this may be a thread.
                yield Reading(key, tuple(self.values[start : start + count]), True)
            return
        for names in sorted(self._directory.glob("*.names")):
            yield from _read(names)

    def close(self) -> None:
        """Count on alone: the others see what was counted so far, of a process that has ended."""
        if self._names is not None:
            self._names.close()
            self._names = self._directory = None

    def _tell(self, key: Key, start: int, count: int) -> None:
        if self._names is not None:
            self._names.write(json.dumps([*key, start, count]).encode() + b"\n")


def _read(names: Path) -> Iterator[Reading]:
    try:
        with names.open("rb") as file, names.with_suffix(".cells").open("rb") as numbers:
            alive = _is_held(file)
            lines = file.read().split(b"\n")[:-1]  # What has no end yet is being written.
            with mmap.mmap(numbers.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                for line in lines:
                    name, labels, start, count = json.loads(line)
                    values = struct.unpack_from(f"={count}d", mapped, start * 8)
                    yield Reading((name, tuple(labels)), values, alive)
    except (FileNotFoundError, ValueError):  # One that is just being made, or that an end cut off in its making.
        return


def _is_held(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
