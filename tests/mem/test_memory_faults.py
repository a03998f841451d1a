"""A store that fails costs nobody an answer, and the operator hears of it."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.issuer import Issuer
from tests.mem.test_memory_routes import CHAT, answering
from tests.servers import Engine, bearer, client_of, environ_for, spawn, started

OPERATOR = "o" * 32
PATIENCE = 40.0  # Seconds; a probe is made every five, and a machine may be busy.


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await check():  # noqa: ASYNC110 - another process is waited for
            await asyncio.sleep(0.1)


@asynccontextmanager
async def running(tmp_path: Path, **variables: str) -> AsyncIterator[tuple[httpx.AsyncClient, int]]:
    """A gateway of its own process that remembers, a client of one user, and the process's id."""
    async with Issuer.start() as issuer, Engine(answering) as engine:
        environ = {
            **environ_for(issuer, engine.url, DID_LOGIN="off", METRICS_TOKEN=OPERATOR, MEM_BACKEND="sqlite"),
            "ATTACH_DATA_DIR": str(tmp_path / "data"),
            **variables,
        }
        async with (
            spawn("--port", "0", environ=environ, cwd=tmp_path) as process,
            client_of(await started(process)) as client,
        ):
            client.headers.update(bearer(issuer.token()))
            yield client, process.pid


async def chat(client: httpx.AsyncClient) -> None:
    """Have a chat, streamed and not, each in full."""
    for stream in (True, False):
        answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
        assert answer.status_code == 200
        assert "grass" in answer.text
        assert not stream or answer.text.endswith("data: [DONE]\n\n")


async def kept(client: httpx.AsyncClient) -> int:
    answer = await client.get("/mem/events")
    assert answer.status_code == 200, answer.text
    return len(answer.json()["events"])


async def lost(client: httpx.AsyncClient) -> float:
    """What the metric says."""
    page = (await client.get("/metrics", headers=bearer(OPERATOR))).text
    (value,) = (line.split()[-1] for line in page.splitlines() if line.startswith("attach_lost_records_total "))
    return float(value)


async def readiness(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.get("/readyz")
    assert answer.status_code == 200
    told: dict[str, Any] = answer.json()
    return told


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits another process's files")
async def test_a_full_disk_stops_no_answer_and_is_told(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, process):
        await chat(client)
        assert await kept(client) == 2
        _, most = resource.prlimit(process, resource.RLIMIT_FSIZE)
        resource.prlimit(process, resource.RLIMIT_FSIZE, (1, most))
        await chat(client)
        assert await lost(client) == 2
        assert (await client.post("/mem/events", json={"text": "x"})).json()["code"] == "memory_unavailable"

        async def is_degraded() -> bool:
            return "memory" in (await readiness(client)).get("reasons", [])

        await until(is_degraded)
        resource.prlimit(process, resource.RLIMIT_FSIZE, (most, most))

        async def is_ready() -> bool:
            return await readiness(client) == {"status": "ok"}

        await until(is_ready)
        await chat(client)
        assert await kept(client) == 4


async def test_a_store_that_cannot_be_had_stops_no_answer_and_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way of the directory")
    async with running(tmp_path) as (client, _):
        await chat(client)
        assert await lost(client) == 2
        assert (await readiness(client))["reasons"] == ["memory"]
        for method, path in [("GET", "/mem/events"), ("GET", "/mem/export"), ("DELETE", "/mem"), ("POST", "/v1/logs")]:
            line = {"run_id": "r", "level": "info", "message": "x"}
            answer = await client.request(method, path, json=line if method == "POST" else None)
            assert (answer.status_code, answer.json()["code"]) == (503, "memory_unavailable")
        (tmp_path / "data").unlink()

        async def is_ready() -> bool:
            await chat(client)
            return await readiness(client) == {"status": "ok"}

        await until(is_ready)
        await chat(client)
        assert await kept(client) >= 2
