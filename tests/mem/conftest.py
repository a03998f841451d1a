"""The PostgreSQL that memory is kept in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.util import find_spec

import pytest_asyncio

from tests.postgres import serve_postgres
from tests.requirements import require


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def database_url() -> AsyncIterator[str]:
    """One server and one database for all tests: each has users whom no other has."""
    require("asyncpg", find_spec("asyncpg") is not None, "asyncpg is not installed: script/setup dev,postgres")
    async with serve_postgres() as url:
        yield url
