"""The gateway's own record of who used what: exact, and kept whatever becomes of every other place."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import Self

from store import Change, Journal, JournalError

from .interface import UsageBackend, UsageEvent

logger = logging.getLogger(__name__)

MOST_MODELS_A_DAY = 100  # Of one user: callers can choose names.
MOST_MODEL_CHARS = 200
MOST_PATH_CHARS = 200
MOST_REQUESTS = 5_000_000
OTHER_MODEL = "other"
NO_MODEL = "unknown"
SWEEP_SECONDS = 60.0
SWEPT_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DailyUsage:
    """What one user used of one model on one day of UTC.

    Attributes:
        day: As 2026-01-31.
        errors: How many of `requests` were answered with 400 or above.
        estimated: How many of them the engine did not count.
    """

    user: str
    day: str
    model: str
    requests: int
    errors: int
    estimated: int
    tokens_in: int
    tokens_out: int


class UsageRecord(UsageBackend):
    """Keeps each request for a time, and the sums by user, day and model ten times as long, in the journal.

    A request is counted once, however often it is told. While it is open, what is too old is let go in small pieces,
    and beyond five million requests the oldest.
    """

    def __init__(self, journal: Journal, *, keep_days: int = 90, clock: Callable[[], float] = time.time) -> None:
        self._journal = journal
        self._keep_days = keep_days
        self._clock = clock
        self._sweeper: asyncio.Task[None] | None = None

    def changes(self, event: UsageEvent) -> Change | None:
        return partial(_write, event)

    def observe(self, event: UsageEvent) -> None:
        pass

    async def of(self, user: str | None, *, since: str, until: str = "9999-12-31") -> Sequence[DailyUsage]:
        """By day and model, from day `since` to day `until`, for one user, or for all (None), the latest day first.

        Raises:
            JournalError: The record cannot be read now.
        """

        def query(connection: sqlite3.Connection) -> Sequence[DailyUsage]:
            rows = connection.execute(
                "SELECT user, day, model, requests, errors, estimated, tokens_in, tokens_out FROM usage_days"
                " WHERE day BETWEEN ? AND ? AND user = coalesce(?, user) ORDER BY day DESC, user, model",
                (since, until, user),
            )
            return [
                DailyUsage(
                    user=row[0],
                    day=row[1],
                    model=row[2],
                    requests=row[3],
                    errors=row[4],
                    estimated=row[5],
                    tokens_in=row[6],
                    tokens_out=row[7],
                )
                for row in rows
            ]

        return await self._journal.read(query)

    async def __aenter__(self) -> Self:
        self._sweeper = asyncio.create_task(self._sweep_on(), name="usage-sweeper")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
            self._sweeper = None

    async def sweep(self) -> None:
        """Let go of what is too old or too much. Raises `JournalError`."""
        oldest = self._clock() - self._keep_days * 86_400
        first_day = _day(self._clock() - self._keep_days * 10 * 86_400)
        while await self._journal.write(partial(_let_go, oldest, first_day)):
            pass

    async def _sweep_on(self) -> None:
        while True:
            with suppress(JournalError):  # It says so in the log itself, and the next time will do.
                await self.sweep()
            await asyncio.sleep(SWEEP_SECONDS)


def days_before(moment: float, days: int) -> str:
    """The day of UTC that is `days` before that of `moment`, in seconds since the epoch."""
    return (datetime.fromtimestamp(moment, UTC) - timedelta(days=days)).date().isoformat()


def _day(moment: float) -> str:
    return _numbered(int(moment // 86_400))


@lru_cache(maxsize=8)
def _numbered(day: int) -> str:
    return days_before(day * 86_400, 0)


def _write(event: UsageEvent, connection: sqlite3.Connection) -> None:
    model = (event.model or NO_MODEL)[:MOST_MODEL_CHARS]
    new = connection.execute(
        "INSERT INTO usage_requests (request_id, user, project, model, tokens_in, tokens_out, exact, status, path, at,"
        " duration, first_token, task_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (request_id) DO NOTHING",
        (
            event.request_id,
            event.user,
            event.project,
            model,
            event.tokens_in,
            event.tokens_out,
            event.exact,
            event.status,
            event.path[:MOST_PATH_CHARS],
            event.at,
            event.duration,
            event.first_token,
            event.task_id,
        ),
    ).rowcount
    if new:
        _add_to_day(event, model, connection)


def _add_to_day(event: UsageEvent, model: str, connection: sqlite3.Connection) -> None:
    counts = (event.status >= 400, not event.exact, event.tokens_in, event.tokens_out)
    day = _day(event.at)
    if connection.execute(
        "UPDATE usage_days SET requests = requests + 1, errors = errors + ?, estimated = estimated + ?,"
        " tokens_in = tokens_in + ?, tokens_out = tokens_out + ? WHERE user = ? AND day = ? AND model = ?",
        (*counts, event.user, day, model),
    ).rowcount:
        return
    model = _model(event, model, day, connection)
    connection.execute(
        "INSERT INTO usage_days (user, day, model, requests, errors, estimated, tokens_in, tokens_out)"
        " VALUES (?, ?, ?, 1, ?, ?, ?, ?) ON CONFLICT (user, day, model) DO UPDATE SET"
        " requests = requests + 1, errors = errors + excluded.errors, estimated = estimated + excluded.estimated,"
        " tokens_in = tokens_in + excluded.tokens_in, tokens_out = tokens_out + excluded.tokens_out",
        (event.user, day, model, *counts),
    )


def _model(event: UsageEvent, model: str, day: str, connection: sqlite3.Connection) -> str:
    """What a model that is new today is called: callers can make names up, and no more than so many are told apart."""
    (models,) = connection.execute(
        "SELECT COUNT(*) FROM usage_days WHERE user = ? AND day = ?", (event.user, day)
    ).fetchone()
    if models < MOST_MODELS_A_DAY:
        return model
    connection.execute("UPDATE usage_requests SET model = ? WHERE request_id = ?", (OTHER_MODEL, event.request_id))
    return OTHER_MODEL


def _let_go(oldest: float, first_day: str, connection: sqlite3.Connection) -> bool:
    """Whether there may be more. Rows are in the order in which they came, so that the first ones are the oldest."""
    gone = connection.execute(
        "DELETE FROM usage_requests WHERE sequence IN (SELECT sequence FROM usage_requests ORDER BY sequence LIMIT ?)"
        " AND (at < ? OR sequence <= (SELECT max(sequence) FROM usage_requests) - ?)",
        (SWEPT_AT_ONCE, oldest, MOST_REQUESTS),
    ).rowcount
    connection.execute("DELETE FROM usage_days WHERE day < ?", (first_day,))
    return gone == SWEPT_AT_ONCE
