"""SQLAlchemy's part of the database: its engines, and the tables as they have to be."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Float, Integer, MetaData, String, Table, event, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from .database import DatabaseError, Schema

BUSY_SECONDS = 10.0  # How long another process may hold the file before a write counts as failed.
CONNECT_SECONDS = 5.0
CREATION_LOCK = 4_735_221_908_114  # Any number: who starts at the same moment waits for whoever has it.

_OWN = MetaData()
_VERSIONS = Table(
    "attach_schema",
    _OWN,
    Column("part", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("since", Float, nullable=False),
)


def server_engines(url: str) -> tuple[AsyncEngine, AsyncEngine]:
    """What writes to a PostgreSQL server, and what reads: they share their connections."""
    engine = create_async_engine(
        url,
        pool_size=10,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS,
        pool_pre_ping=True,
        connect_args={"timeout": CONNECT_SECONDS},
    )
    return engine, engine.execution_options(isolation_level="AUTOCOMMIT")


def file_engines(path: Path) -> tuple[AsyncEngine, AsyncEngine]:
    """What writes to a SQLite file, one at a time, and what reads beside it."""
    url = f"sqlite+aiosqlite:///{path}"
    writer = create_async_engine(
        url, pool_size=1, max_overflow=0, pool_timeout=BUSY_SECONDS, connect_args={"timeout": BUSY_SECONDS}
    )
    event.listen(writer.sync_engine, "connect", _prepare)
    event.listen(writer.sync_engine, "begin", _begin)
    return writer, create_async_engine(url, pool_size=4, max_overflow=0, isolation_level="AUTOCOMMIT")


async def create(connection: AsyncConnection, schemas: Sequence[Schema], *, locked: bool) -> None:
    """Make what tables are missing, and bring the others to what they are now; `locked`: one machine after another."""
    if locked:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": CREATION_LOCK})
    await connection.run_sync(_OWN.create_all)
    for schema in schemas:
        await _bring(connection, schema)


async def _bring(connection: AsyncConnection, schema: Schema) -> None:
    """Make the tables of one part, or bring them to what they are now."""
    found = await connection.execute(select(_VERSIONS.c.version).where(_VERSIONS.c.part == schema.part))
    version = found.scalar_one_or_none()
    if version is None:
        await connection.run_sync(schema.tables.create_all)
        row = {"part": schema.part, "version": schema.version, "since": time.time()}
        await connection.execute(insert(_VERSIONS), row)
        return
    if version > schema.version:
        raise DatabaseError(f"The {schema.part} in the database are of a newer version of the gateway.")
    for step in schema.steps[version - 1 :]:
        await connection.execute(text(step))
    await connection.execute(_VERSIONS.update().where(_VERSIONS.c.part == schema.part).values(version=schema.version))


def _prepare(connection: Any, _record: object) -> None:
    """Let this module say when a transaction begins, and let readers read beside a writer."""
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA journal_size_limit = 67108864")
    cursor.close()


def _begin(connection: Any) -> None:
    # A transaction that begins by reading could not become a writing one while another process writes.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
