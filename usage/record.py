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

from store import Backlog, Change, Journal, JournalError

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

# A parameter that is NULL, bytes or a bool is offered to adapters first, at the cost of six texts.
_USUAL = "request_id, user, model, tokens_in, tokens_out, exact, status, path, at, duration, first_token"
_COLUMNS = f"{_USUAL}, project, task_id"
_PUT_DOWN = f"INSERT INTO usage_inbox ({_USUAL}) VALUES ({', '.join('?' * 11)})"  # noqa: S608 - of fixed words
_PUT_DOWN_WHOLE = f"INSERT INTO usage_inbox ({_COLUMNS}) VALUES ({', '.join('?' * 13)})"  # noqa: S608
_ENTER = (
    f"INSERT INTO usage_requests ({_COLUMNS}) SELECT {_COLUMNS} FROM usage_inbox WHERE true ORDER BY sequence"  # noqa: S608
    " ON CONFLICT (request_id) DO NOTHING"
)
_DAY = "CAST(at / 86400 AS INTEGER)"
_ADD_TO_DAYS = f"""
    INSERT INTO usage_days (user, day, model, requests, errors, estimated, tokens_in, tokens_out)
    SELECT user, date(number * 86400, 'unixepoch'), model, requests, errors, estimated, tokens_in, tokens_out FROM (
        SELECT user, {_DAY} AS number, model, COUNT(*) AS requests, SUM(status >= 400) AS errors,
            SUM(NOT exact) AS estimated, SUM(tokens_in) AS tokens_in, SUM(tokens_out) AS tokens_out
        FROM usage_requests WHERE sequence > ? GROUP BY user, number, model
    ) WHERE true
    ON CONFLICT (user, day, model) DO UPDATE SET requests = requests + excluded.requests,
        errors = errors + excluded.errors, estimated = estimated + excluded.estimated,
        tokens_in = tokens_in + excluded.tokens_in, tokens_out = tokens_out + excluded.tokens_out
"""  # noqa: S608
# Who may have too many models on a day, with those that are new.
_CROWDED = f"""
    SELECT user, number FROM (
        SELECT user, number, COUNT(*) AS models FROM (
            SELECT DISTINCT user, {_DAY} AS number, model FROM usage_requests WHERE sequence > ?
        ) GROUP BY user, number
    ) new
    WHERE models + (
        SELECT COUNT(*) FROM usage_days d WHERE d.user = new.user AND d.day = date(new.number * 86400, 'unixepoch')
    ) > ?
"""  # noqa: S608
_MODELS_OF_DAY = "SELECT model FROM usage_days WHERE user = ? AND day = ?"
_NEW = f"sequence > ? AND user = ? AND {_DAY} = ?"
_NEW_MODELS = f"SELECT model FROM usage_requests WHERE {_NEW} GROUP BY model ORDER BY MIN(sequence)"  # noqa: S608
_NAME_OTHER = f"UPDATE usage_requests SET model = ? WHERE {_NEW} AND model = ?"  # noqa: S608


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

    observes = False

    def __init__(self, journal: Journal, *, keep_days: int = 90, clock: Callable[[], float] = time.time) -> None:
        self._journal = journal
        self._inbox = Backlog(journal, waits=_is_put_down, work=_bring_in)
        self._keep_days = keep_days
        self._clock = clock
        self._sweeper: asyncio.Task[None] | None = None

    def changes(self, event: UsageEvent) -> Change | None:
        return partial(self._put_down, event)

    def _put_down(self, event: UsageEvent, connection: sqlite3.Connection) -> None:
        model, path = (event.model or NO_MODEL)[:MOST_MODEL_CHARS], event.path[:MOST_PATH_CHARS]
        usual = (
            event.request_id,
            event.user,
            model,
            event.tokens_in,
            event.tokens_out,
            1 if event.exact else 0,
            event.status,
            path,
            event.at,
            event.duration,
            event.first_token,
        )
        if event.project is None and event.task_id is None:
            connection.execute(_PUT_DOWN, usual)
        else:
            connection.execute(_PUT_DOWN_WHOLE, (*usual, event.project, event.task_id))
        self._inbox.grew()

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

        return await self._inbox.read(query)

    async def __aenter__(self) -> Self:
        await self._inbox.__aenter__()
        self._sweeper = asyncio.create_task(self._sweep_on(), name="usage-sweeper")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
            self._sweeper = None
        await self._inbox.__aexit__()

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


def _is_put_down(connection: sqlite3.Connection) -> bool:
    (waits,) = connection.execute("SELECT EXISTS (SELECT 1 FROM usage_inbox)").fetchone()
    return bool(waits)


def _bring_in(connection: sqlite3.Connection) -> int:
    """Enter what was put down, each request once, and add it to the sums. Returns how much was put down."""
    if not _is_put_down(connection):
        return 0
    (last,) = connection.execute("SELECT coalesce(max(sequence), 0) FROM usage_requests").fetchone()
    connection.execute(_ENTER)
    _name_other_models(connection, last)
    connection.execute(_ADD_TO_DAYS, (last,))
    return connection.execute("DELETE FROM usage_inbox").rowcount


def _name_other_models(connection: sqlite3.Connection, last: int) -> None:
    """Callers can make names of models up: no more than so many of a user and day are told apart."""
    for user, day in connection.execute(_CROWDED, (last, MOST_MODELS_A_DAY)).fetchall():
        of_day = (user, _numbered(day))
        known = {model for (model,) in connection.execute(_MODELS_OF_DAY, of_day)}
        for (model,) in connection.execute(_NEW_MODELS, (last, user, day)).fetchall():
            if model in known:
                continue
            if len(known) < MOST_MODELS_A_DAY:
                known.add(model)
            else:
                connection.execute(_NAME_OTHER, (OTHER_MODEL, last, user, day, model))


def _let_go(oldest: float, first_day: str, connection: sqlite3.Connection) -> bool:
    """Whether there may be more. Rows are in the order in which they came, so that the first ones are the oldest."""
    _bring_in(connection)
    gone = connection.execute(
        "DELETE FROM usage_requests WHERE sequence IN (SELECT sequence FROM usage_requests ORDER BY sequence LIMIT ?)"
        " AND (at < ? OR sequence <= (SELECT max(sequence) FROM usage_requests) - ?)",
        (SWEPT_AT_ONCE, oldest, MOST_REQUESTS),
    ).rowcount
    connection.execute("DELETE FROM usage_days WHERE day < ?", (first_day,))
    return gone == SWEPT_AT_ONCE
