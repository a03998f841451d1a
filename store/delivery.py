"""Sends what is in the outbox for one sink, until it has arrived."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Self

from .changes import JournalError
from .journal import Journal
from .outbox import Entry

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
LONGEST_WAIT_ASKED = 3600.0

Deliver = Callable[[Sequence[Entry]], Awaitable[None]]


class DeliveryFailed(Exception):
    """The sink took nothing now: everything is sent again later.

    `str()` is for the log: no bodies, no credentials.
    """

    def __init__(self, why: str = "", *, retry_after: float | None = None) -> None:
        """`retry_after`: seconds that the sink asked to be left alone, if it did."""
        super().__init__(why)
        self.retry_after = retry_after


class Rejected(Exception):
    """The sink took what was sent except the entries `ids`, and will hardly take those another time."""

    def __init__(self, ids: Collection[str], why: str = "") -> None:
        super().__init__(why)
        self.ids = frozenset(ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a delivery goes about it. Times in seconds.

    Attributes:
        batch: The most entries that are sent together; fewer for a while after a failure.
        batch_bytes: The most of their bodies; a larger one goes alone.
        linger: How long something new waits for company.
        timeout: How long sending a batch may take.
        lease: For how long nobody else sends what one worker is sending. Above `timeout`.
        first_wait: The pause after the first failure in a row; it doubles with each.
        longest_wait: The longest of these pauses.
        journal_wait: The pause after the record could not be read or written.
        tries: How often an entry may be rejected before it is set aside.
    """

    batch: int = 100
    batch_bytes: int = 4 * 1024 * 1024
    linger: float = 0.1
    timeout: float = 10.0
    lease: float = 20.0
    first_wait: float = 0.5
    longest_wait: float = 60.0
    journal_wait: float = 5.0
    tries: int = 5


class Delivery:
    """The sending of one sink's entries: an async context manager that runs one task.

    Several workers may have one for the same sink: an entry is leased to one of them at a time. It counts as arrived
    once `deliver` returns, and is then forgotten; a process that dies in between sends it again under the same id.
    `deliver` raises `DeliveryFailed` or `Rejected`; anything else it raises is logged and counts as the former. A sink
    that is down is tried again with growing pauses and jitter, without end.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        sink: str,
        deliver: Deliver,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._sink = sink
        self._deliver = deliver
        self._pace = pace or Pace()
        self._clock = clock
        self._lease = secrets.token_hex(8)
        self._batch = self._pace.batch
        self._failures = 0
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"delivery-{self._sink}")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop at once; what is not delivered is sent after the next start, or by another worker."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        with suppress(JournalError):
            await self._journal.write(self._let_go)

    def wake(self) -> None:
        """Say that there is something new, so that it need not wait for the next look."""
        self._news.set()

    async def _run(self) -> None:
        while True:
            try:
                await self._turn()
            except JournalError as error:
                logger.warning("outbox.stalled", extra={"sink": self._sink, "error": str(error)})
                await asyncio.sleep(self._pace.journal_wait)

    async def _turn(self) -> None:
        """Send one batch, or wait until there may be one."""
        leased = await self._next_batch()
        if not leased:
            await self._wait_for_news()
            return
        entries = tuple(leased.values())
        try:
            async with asyncio.timeout(self._pace.timeout):
                await self._deliver(entries)
        except Rejected as rejected:
            logger.warning(
                "outbox.rejected", extra={"sink": self._sink, "entries": len(rejected.ids), "reason": str(rejected)}
            )
            await self._journal.write(partial(self._settle, leased, rejected.ids))
        except Exception as failure:  # noqa: BLE001 - the loop must outlive whatever a sink does
            await self._put_off(leased, failure)
            return
        else:
            await self._journal.write(partial(self._settle, leased, frozenset()))
        self._failures = 0
        self._batch = min(self._pace.batch, self._batch * 2)

    async def _wait_for_news(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await self._news.wait()
        if self._news.is_set():
            self._news.clear()
            await asyncio.sleep(self._pace.linger)

    async def _next_batch(self) -> Mapping[int, Entry]:
        # Looked at first without the writer's lock: most of the time there is nothing.
        if not await self._journal.read(self._is_any_due):
            return {}
        return await self._journal.write(self._take)

    def _is_any_due(self, connection: sqlite3.Connection) -> bool:
        query = "SELECT 1 FROM outbox WHERE sink = ? AND due <= ? LIMIT 1"
        return connection.execute(query, (self._sink, self._clock())).fetchone() is not None

    def _take(self, connection: sqlite3.Connection) -> Mapping[int, Entry]:
        now = self._clock()
        rows = connection.execute(
            "SELECT sequence, id, owner, body, created, rejections FROM outbox"
            " WHERE sink = ? AND due <= ? ORDER BY due, sequence LIMIT ?",
            (self._sink, now, self._batch),
        )
        taken: dict[int, Entry] = {}
        size = 0
        for sequence, name, owner, body, created, rejections in rows:
            size += len(body)
            if taken and size > self._pace.batch_bytes:
                break
            taken[sequence] = Entry(id=name, owner=owner, body=body, created=created, rejections=rejections)
        rows.close()
        connection.executemany(
            "UPDATE outbox SET due = ?, lease = ? WHERE sequence = ?",
            ((now + self._pace.lease, self._lease, sequence) for sequence in taken),
        )
        return taken

    def _settle(self, leased: Mapping[int, Entry], rejected: Collection[str], connection: sqlite3.Connection) -> None:
        """Forget what arrived; have what was refused tried again, or set it aside."""
        # Another worker may hold what this one took too long over, and a new entry may stand at an old one's place.
        arrived = [sequence for sequence, entry in leased.items() if entry.id not in rejected]
        connection.executemany(
            "DELETE FROM outbox WHERE sequence = ? AND lease = ?", ((sequence, self._lease) for sequence in arrived)
        )
        refused = [(sequence, entry) for sequence, entry in leased.items() if entry.id in rejected]
        aside = sum(self._set_back(connection, sequence, entry.rejections + 1) for sequence, entry in refused)
        connection.execute("UPDATE outbox_sinks SET set_aside = set_aside + ? WHERE sink = ?", (aside, self._sink))

    def _set_back(self, connection: sqlite3.Connection, sequence: int, rejections: int) -> int:
        """1 if that was the last time."""
        last = rejections >= self._pace.tries
        due = None if last else self._clock() + self._wait(rejections)
        changed = connection.execute(
            "UPDATE outbox SET due = ?, lease = NULL, rejections = ? WHERE sequence = ? AND lease = ?",
            (due, rejections, sequence, self._lease),
        ).rowcount
        return changed if last else 0

    async def _put_off(self, leased: Mapping[int, Entry], failure: Exception) -> None:
        """Leave the sink alone for a while. A smaller batch finds the one entry that it cannot stand."""
        self._failures += 1
        self._batch = max(1, self._batch // 2)
        asked = getattr(failure, "retry_after", None) or 0.0
        wait = max(self._wait(self._failures), min(asked, LONGEST_WAIT_ASKED))
        expected = isinstance(failure, DeliveryFailed | TimeoutError)
        logger.log(
            logging.WARNING if expected else logging.ERROR,
            "outbox.delivery_failed",
            exc_info=None if expected else failure,
            extra={
                "sink": self._sink,
                "entries": len(leased),
                "reason": str(failure) or type(failure).__name__,
                "failures": self._failures,
                "wait": round(wait, 3),
            },
        )

        def change(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "UPDATE outbox SET due = ?, lease = NULL WHERE sequence = ? AND lease = ?",
                ((self._clock() + wait, sequence, self._lease) for sequence in leased),
            )

        await self._journal.write(change)
        await asyncio.sleep(wait)

    def _wait(self, failures: int) -> float:
        longest = min(self._pace.longest_wait, self._pace.first_wait * 2.0 ** min(failures - 1, 30))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - so that workers do not come back all at once

    def _let_go(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE outbox SET due = created, lease = NULL WHERE sink = ? AND lease = ?", (self._sink, self._lease)
        )
