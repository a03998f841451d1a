"""Every database that tasks may be kept in."""

from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import pytest_asyncio

from a2a.task_store import TaskStore
from a2a.task_tables import SCHEMA
from store import Database
from tests.clock import Clock
from tests.postgres import serve_postgres
from tests.requirements import require


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres() -> AsyncIterator[str]:
    """One server for all tests; each finds it empty."""
    require("asyncpg", find_spec("asyncpg") is not None, "asyncpg is not installed: script/setup dev,postgres")
    async with serve_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest) -> str | None:
    """The URL of a server; None: a file."""
    return None if request.param == "sqlite" else request.getfixturevalue("postgres")


@pytest.fixture
async def database_url(place: str | None) -> str | None:
    """The same, with nothing in it."""
    if place is not None:
        await empty(place)
    return place


async def empty(url: str) -> None:
    import asyncpg  # noqa: PLC0415 - missing on machines where this is not called

    connection = await asyncpg.connect(user="postgres", database="postgres", host=url.partition("host=")[2])
    await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    await connection.close()


@pytest.fixture
async def database(database_url: str | None, tmp_path: Path) -> AsyncIterator[Database]:
    async with Database(tmp_path / "data", schemas=[SCHEMA], url=database_url) as database:
        yield database


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database: Database, clock: Clock) -> TaskStore:
    return TaskStore(database, clock=clock, max_open=5)
