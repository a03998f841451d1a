"""The SQL database for what replicas share: a SQLite file of this machine, or PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Column, Float, Integer, MetaData, String, Table, event, insert, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

DATABASE_FILE = "tasks.sqlite"
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


class DatabaseError(Exception):
    """The database cannot be reached, read or written now. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of one part of the program.

    Attributes:
        part: Its name in the database.
        tables: As they are now.
        steps: What brings an older database there, step N from version N + 1 to N + 2; never changed once released.
    """

    part: str
    tables: MetaData
    steps: Sequence[str] = ()

    @property
    def version(self) -> int:
        return 1 + len(self.steps)


class Database:
    """Transactions on what several processes share. Open it with `async with`, in the loop that uses it.

    A transaction that ended well survives the end of this process, however it ends. The processes of one machine may
    share the SQLite file; several machines need PostgreSQL.
    """

    def __init__(self, directory: Path, *, schemas: Sequence[Schema], url: str | None = None) -> None:
        """Opens nothing.

        Args:
            directory: For the file; made with mode 0700, the file with mode 0600.
            schemas: What tables there are to be.
            url: `postgresql+asyncpg://...`; None: the file.
        """
        self.path = directory / DATABASE_FILE if url is None else None
        self._schemas = schemas
        self._url = url
        self._writer: AsyncEngine | None = None
        self._reader: AsyncEngine | None = None
        self._stack = AsyncExitStack()
        self._entered = False
        self._opening = asyncio.Lock()

    @property
    def shared_by_machines(self) -> bool:
        """Whether several machines may use it at a time."""
        return self.path is None

    @property
    def found(self) -> bool:
        """Whether there may be something in it already."""
        return self.path is None or self.path.exists()

    async def __aenter__(self) -> Self:
        """Opens nothing yet: whoever needs it first does, and hears if it is not there."""
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False
        self._writer = self._reader = None
        await self._stack.aclose()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """One transaction that is committed when the block ends well. Raises `DatabaseError`."""
        with database_errors():
            writer, _ = await self._opened()
            async with writer.begin() as connection:
                yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Statements that change nothing, each of what was committed by then. Raises `DatabaseError`."""
        with database_errors():
            _, reader = await self._opened()
            async with reader.connect() as connection:
                yield connection

    async def scrub(self) -> None:
        """Leave nothing in the file's log of what was deleted. Where readers are in the way, the next one does."""
        if self.path is not None:
            async with self.read() as connection:
                await connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))

    async def _opened(self) -> tuple[AsyncEngine, AsyncEngine]:
        if self._writer is not None and self._reader is not None:
            return self._writer, self._reader
        if not self._entered:
            raise DatabaseError("The database is not open.")
        async with self._opening:
            if self._writer is None or self._reader is None:
                self._writer, self._reader = await self._open_and_create()
            return self._writer, self._reader

    async def _open_and_create(self) -> tuple[AsyncEngine, AsyncEngine]:
        async with AsyncExitStack() as stack:
            writer, reader = self._open()
            stack.push_async_callback(writer.dispose)
            if self._url is None:
                stack.push_async_callback(reader.dispose)
            async with writer.begin() as connection:
                await self._create(connection)
            self._stack = stack.pop_all()
        return writer, reader

    def _open(self) -> tuple[AsyncEngine, AsyncEngine]:
        if self._url is not None:
            engine = create_async_engine(
                self._url,
                pool_size=10,
                max_overflow=0,
                pool_timeout=CONNECT_SECONDS,
                pool_pre_ping=True,
                connect_args={"timeout": CONNECT_SECONDS},
            )
            return engine, engine.execution_options(isolation_level="AUTOCOMMIT")
        assert self.path is not None
        _make_private(self.path)
        url = f"sqlite+aiosqlite:///{self.path}"
        writer = create_async_engine(
            url, pool_size=1, max_overflow=0, pool_timeout=BUSY_SECONDS, connect_args={"timeout": BUSY_SECONDS}
        )
        event.listen(writer.sync_engine, "connect", _prepare)
        event.listen(writer.sync_engine, "begin", _begin)
        reader = create_async_engine(url, pool_size=4, max_overflow=0, isolation_level="AUTOCOMMIT")
        return writer, reader

    async def _create(self, connection: AsyncConnection) -> None:
        if self._url is not None:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": CREATION_LOCK})
        await connection.run_sync(_OWN.create_all)
        for schema in self._schemas:
            await self._bring(connection, schema)

    async def _bring(self, connection: AsyncConnection, schema: Schema) -> None:
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
        await connection.execute(
            _VERSIONS.update().where(_VERSIONS.c.part == schema.part).values(version=schema.version)
        )


@contextmanager
def database_errors() -> Iterator[None]:
    """Give SQLAlchemy's and the drivers' errors our name. What the block itself raises of another kind passes."""
    try:
        yield
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        raise DatabaseError(f"The database cannot be used: {type(error).__name__}.") from error


def _prepare(connection: Any, _record: object) -> None:
    """Let this module say when a transaction begins, and let readers read beside a writer."""
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA secure_delete = ON")
    cursor.execute("PRAGMA journal_size_limit = 67108864")
    cursor.close()


def _begin(connection: Any) -> None:
    # A transaction that begins by reading could not become a writing one while another process writes.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _make_private(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
