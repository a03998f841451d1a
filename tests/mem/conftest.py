"""What memory is kept in: a journal, and a PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import pytest_asyncio

from store import Journal
from tests.postgres import serve_postgres
from tests.requirements import require


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def database_url() -> AsyncIterator[str]:
    """One server and one database for all tests: each has users whom no other has."""
    require("asyncpg", find_spec("asyncpg") is not None, "asyncpg is not installed: script/setup dev,postgres")
    async with serve_postgres() as url:
        yield url


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
async def journal(directory: Path) -> AsyncIterator[Journal]:
    async with Journal(directory) as journal:
        yield journal
