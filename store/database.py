"""The SQL database for what replicas share: a SQLite file of this machine, or PostgreSQL."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:  # SQLAlchemy takes as long to import as all of ours: it has time until somebody sends a task.
    from sqlalchemy import MetaData
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

DATABASE_FILE = "tasks.sqlite"


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

    def __init__(
        self,
        directory: Path,
        *,
        schemas: Sequence[Schema] | Callable[[], Sequence[Schema]],
        url: str | None = None,
    ) -> None:
        """Opens nothing.

        Args:
            directory: For the file; made with mode 0700, the file with mode 0600.
            schemas: What tables there are to be, or what says so when they are needed.
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

    async def open(self) -> None:
        """Have the tables as they are to be. Whoever does not call this has it done by his first transaction.

        Bringing a large database to a new version takes as long as that takes. Raises `DatabaseError`.
        """
        with database_errors():
            await self._opened()

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
                await connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

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
        from .engines import create, file_engines, server_engines  # noqa: PLC0415 - see above

        schemas = self._schemas() if callable(self._schemas) else self._schemas
        async with AsyncExitStack() as stack:
            if self.path is None:
                assert self._url is not None
                writer, reader = server_engines(self._url)
            else:
                _make_private(self.path)
                writer, reader = file_engines(self.path)
                stack.push_async_callback(reader.dispose)
            stack.push_async_callback(writer.dispose)
            async with writer.begin() as connection:
                await create(connection, schemas, locked=self.shared_by_machines)
            self._stack = stack.pop_all()
        return writer, reader


@contextmanager
def database_errors() -> Iterator[None]:
    """Give SQLAlchemy's and the drivers' errors our name. What the block itself raises of another kind passes."""
    try:
        yield
    except Exception as error:
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - see above

        if isinstance(error, SQLAlchemyError | OSError | TimeoutError):
            raise DatabaseError(f"The database cannot be used: {type(error).__name__}.") from error
        raise


def _make_private(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
