"""What is counted, by name and labels."""

from __future__ import annotations

import fcntl
import json
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from .cells import Cells

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Family:
    """All series of one name.

    Attributes:
        name: As it is shown, `_total` of a counter included.
        labels: Their names, in the order in which values are given.
        bounds: Upper bounds of a histogram's buckets, without the last, which has none.
    """

    name: str
    kind: Kind
    about: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """How many cells one series has."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1


class Counter:
    """Counts up; as a gauge it may go down again."""

    def __init__(self, cells: Cells, family: Family) -> None:
        self.family = family
        self._cells = cells
        self._starts: dict[tuple[str, ...], int] = {}

    def add(self, amount: float, *labels: str) -> None:
        """Labels must be few: whoever adds bounds them."""
        self._cells.values[self.cell(*labels)] += amount

    def cell(self, *labels: str) -> int:
        """Which of the cells this series has, for who adds to it all the time."""
        start = self._starts.get(labels)
        if start is None:
            start = self._starts[labels] = self._cells.start((self.family.name, labels))
        return start


class Histogram:
    """Counts into buckets and sums up."""

    def __init__(self, cells: Cells, family: Family) -> None:
        self.family = family
        self._cells = cells
        self._bounds = family.bounds

    def start(self, *labels: str) -> int:
        """Where the cells of this series begin. Labels must be few: whoever starts a series bounds them."""
        return self._cells.start((self.family.name, labels), self.family.width)

    def observe(self, value: float, start: int) -> None:
        """Count `value` in the series that begins at `start`."""
        values = self._cells.values
        values[start + 1 + bisect_left(self._bounds, value)] += 1.0
        values[start] += value


class Names:
    """The first so many values of a label; every further one is `other`.

    Processes that share a file of them have the same ones.
    """

    OTHER = "other"

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[str, str] = {self.OTHER: self.OTHER}
        self._file: BinaryIO | None = None

    def get(self, name: str, *, admit: bool = True) -> str:
        """`name`, or `other` where there is no room for it, or where it is new and not to be admitted."""
        known = self._known.get(name)
        if known is not None:
            return known
        if not admit or len(self._known) > self._most:
            return self.OTHER
        if self._file is None:
            self._known[name] = name
        else:
            self._agree(self._file, name)
        return self._known.get(name, self.OTHER)

    def share(self, path: Path) -> None:
        """Have the names that are in `path`, and put new ones there. To be called before there are any."""
        self._file = path.open("a+b", buffering=0)
        self._file.seek(0)

    def close(self) -> None:
        """Agree with nobody from now on."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _agree(self, file: BinaryIO, name: str) -> None:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            for line in file.read().splitlines():
                self._known.setdefault(json.loads(line), json.loads(line))
            if name not in self._known and len(self._known) <= self._most:
                self._known[name] = name
                file.write(json.dumps(name).encode() + b"\n")
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
