"""`attach-gateway usage`: who used what, for an operator."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from store import Journal, JournalError
from usage import DailyUsage, UsageRecord, days_before

_HEAD = ("day", "user", "model", "requests", "errors", "estimated", "tokens in", "tokens out")
_TEXTS = 3  # The rest are numbers.


async def usage_table(directory: Path, *, user: str | None, days: int) -> str:
    """A table of the last `days` days of UTC, whether a gateway runs there or not.

    Raises:
        JournalError: There is no record in `directory`, or it cannot be read.
    """
    journal = Journal(directory)
    if not journal.path.exists():
        raise JournalError(f"{journal.path} is not there: nothing was metered, or ATTACH_DATA_DIR is another")
    async with journal:
        rows = await UsageRecord(journal).of(user, since=days_before(time.time(), days - 1))
    return _table([_HEAD, *map(_cells, rows), _total(rows)])


def _cells(row: DailyUsage) -> tuple[str, ...]:
    return (row.day, _visible(row.user), _visible(row.model), *map(str, _numbers(row)))


def _numbers(row: DailyUsage) -> tuple[int, ...]:
    return (row.requests, row.errors, row.estimated, row.tokens_in, row.tokens_out)


def _total(rows: Sequence[DailyUsage]) -> tuple[str, ...]:
    sums = [sum(column) for column in zip(*map(_numbers, rows), strict=True)] or [0] * (len(_HEAD) - _TEXTS)
    return ("total", "", "", *map(str, sums))


def _table(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < _TEXTS else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _visible(text: str) -> str:
    """What a terminal could take for an order is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
