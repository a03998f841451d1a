"""A PostgreSQL record full of events in a fraction of the time: the rows that the gateway would have sent, copied."""

from __future__ import annotations

import asyncio
import itertools
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from mem import MemoryEvent, MemorySettings
from mem.postgres import PostgresMemory, row_of

from .elsewhere import made_elsewhere

BATCH = 5_000
CONNECTIONS = 2
_PLAIN = ("id", "owner", "at", "event", "session", "task", "run", "model", "document")
_GIVEN = (*_PLAIN, "said", "mark")
_TYPES = ", ".join(f"{name} {'double precision' if name == 'at' else 'text'}" for name in _GIVEN)
_STORE_AS_IT_IS = ", ".join(f"ALTER COLUMN {name} SET STORAGE EXTERNAL" for name in ("document", "said"))
_TAKE = f"""
INSERT INTO mem_events ({", ".join(_PLAIN)}, words)
SELECT {", ".join(_PLAIN)}, to_tsvector('simple', said) || to_tsvector('simple', mark) FROM mem_stage
"""

Batch = Sequence[Sequence[Any]]


async def fill_postgres(url: str, make: Callable[[], Iterable[MemoryEvent]]) -> int:
    """Put the events that `make` gives, in another process, into an empty database. Returns how many."""
    async with PostgresMemory(MemorySettings(database_url=url)) as memory:
        assert not await memory.count("")  # Made by it, with all its indexes.
    connect = pkgutil.resolve_name("asyncpg:create_pool")  # Not everybody has it.
    async with connect(url.replace("+asyncpg", ""), min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        indexes = await _without_indexes(pool)
        batches = made_elsewhere(partial(_batches, make))
        one_by_one = asyncio.Lock()
        await asyncio.gather(*(_take_all(pool, batches, one_by_one) for _ in range(CONNECTIONS)))
        async with asyncio.TaskGroup() as making:
            for index in indexes:
                making.create_task(pool.execute(index, timeout=None))
        await pool.execute("VACUUM ANALYZE mem_events", timeout=None)
        return int(await pool.fetchval("SELECT COUNT(*) FROM mem_events"))


async def _without_indexes(pool: Any) -> list[str]:
    """Drop them all. Returns what makes them anew, the slowest first."""
    found = await pool.fetch("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'mem_events'")
    await pool.execute("ALTER TABLE mem_events DROP CONSTRAINT mem_events_pkey")
    for name, _ in found:
        await pool.execute(f"DROP INDEX IF EXISTS {name}")
    made = [sql for name, sql in found if name != "mem_events_pkey"]
    return [*sorted(made, key=lambda sql: " gin " not in sql), "ALTER TABLE mem_events ADD PRIMARY KEY (id)"]


async def _take_all(pool: Any, batches: Iterator[Batch], one_by_one: asyncio.Lock) -> None:
    async with pool.acquire() as connection:
        await connection.execute(f"CREATE TEMPORARY TABLE mem_stage ({_TYPES})")
        await connection.execute(f"ALTER TABLE mem_stage {_STORE_AS_IT_IS}")
        while (batch := await _next(batches, one_by_one)) is not None:
            await connection.copy_records_to_table("mem_stage", records=batch, columns=_GIVEN)
            await connection.execute(_TAKE)
            await connection.execute("TRUNCATE mem_stage")


async def _next(batches: Iterator[Batch], one_by_one: asyncio.Lock) -> Batch | None:
    async with one_by_one:
        return await asyncio.to_thread(next, batches, None)


def _batches(make: Callable[[], Iterable[MemoryEvent]]) -> Iterator[Batch]:
    events = iter(make())
    while batch := [_record(event) for event in itertools.islice(events, BATCH)]:
        yield batch


def _record(event: MemoryEvent) -> Sequence[Any]:
    row = row_of(event)
    return [row[name] for name in _GIVEN]
