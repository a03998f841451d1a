"""Several gateways give a user one quota between them, and a Redis that dies costs nobody an answer."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.dialects import COMPLETION, OLLAMA, PROMPT
from tests.gateways import standing
from tests.issuer import Issuer
from tests.redis_server import RedisServer, redis_server
from tests.servers import Connection, Engine, Received, bearer, environ_for, spawn, started
from tests.test_metrics import all_serve, samples, value

LIMIT = 10_000
GENERATED = 300


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    async with redis_server() as server:
        yield server


async def test_two_hundred_at_a_time_at_four_processes_get_one_limit(tmp_path: Path, server: RedisServer) -> None:
    all_asked = asyncio.Event()
    came: Counter[str] = Counter()
    statuses: Counter[int] = Counter()

    def note(what: str) -> None:
        came[what] += 1
        if came.total() >= 200:
            all_asked.set()

    async def generate(received: Received, connection: Connection) -> None:
        if received.method == b"POST":
            note("admitted")
            await all_asked.wait()  # So that all that is admitted runs at once.
        await OLLAMA.script(GENERATED)(received, connection)

    body = OLLAMA.ask(stream=False, options={"num_predict": GENERATED})
    async with Issuer.start() as issuer, Engine(generate) as engine:
        variables = {
            "METRICS_TOKEN": "secret",
            "MAX_TOKENS_PER_MIN": str(LIMIT),
            "REDIS_URL": server.url,
            "REDIS_TIMEOUT": "30",  # Who has to wait for it on a busy machine is let through otherwise.
            "ATTACH_DATA_DIR": str(tmp_path / "data"),
        }
        environ = environ_for(issuer, engine.url, **variables)
        headers = bearer(issuer.token())
        async with spawn("--port", "0", "--workers", "4", environ=environ, cwd=tmp_path) as process:
            url = await started(process)
            many = httpx.Limits(max_connections=None, max_keepalive_connections=0)
            async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=50, limits=many) as client:

                async def ask() -> None:
                    answer = await client.post(OLLAMA.path, content=body, headers=headers)
                    statuses[answer.status_code] += 1
                    if answer.status_code == 429:
                        note("refused")

                await all_serve(client, "secret", 4)
                await asyncio.gather(*(ask() for _ in range(200)))
    used = statuses[200] * (PROMPT + GENERATED)
    print(f"\n{statuses[200]} of 200 admitted by 4 processes: {used} tokens of {LIMIT}")  # noqa: T201 - pytest -s
    assert statuses[200] + statuses[429] == 200
    assert LIMIT - 2 * GENERATED < used <= LIMIT + statuses[200] * PROMPT  # What prompts were estimated at.


async def test_a_redis_that_dies_and_comes_back_under_load_costs_no_answer(tmp_path: Path, server: RedisServer) -> None:
    limit, window = 200, 3.0
    variables: dict[str, Any] = {
        "MAX_TOKENS_PER_MIN": str(limit),
        "WINDOW": str(window),
        "REDIS_URL": server.url,
        "ATTACH_DATA_DIR": str(tmp_path),
    }
    statuses: Counter[int] = Counter()
    async with standing(OLLAMA.script(), **variables) as stand:
        body = OLLAMA.ask(stream=False, options={"num_predict": COMPLETION})

        async def ask() -> int:
            answer = await stand.ask("POST", OLLAMA.path, body=body)
            assert answer.complete
            statuses[answer.status] += 1
            return answer.status

        async def load() -> None:
            while True:
                await ask()
                await asyncio.sleep(0.01)

        async def until(status: int) -> int:
            """How many were answered otherwise before that."""
            for number in range(10_000):
                if await ask() == status:
                    return number
            raise AssertionError(status)

        loaders = [asyncio.create_task(load()) for _ in range(4)]
        await until(429)
        await server.kill()
        await until(200)
        before = statuses[200]
        while True:  # Far more than the limit, for nobody counts.
            await ask()
            if statuses[200] - before > 2 * limit / (PROMPT + COMPLETION):
                break
        await server.start()
        await until(429)
        for loader in loaders:
            loader.cancel()
        await asyncio.gather(*loaders, return_exceptions=True)
        await asyncio.sleep(window * 1.1)  # Everything has left the window: what fits into the next one is countable.
        fitted = await until(429)
        found = samples((await stand.ask("GET", "/metrics")).body.decode())
    assert set(statuses) == {200, 429}
    assert fitted * (PROMPT + COMPLETION) <= limit
    assert value(found, "attach_quota_store_errors_total", outcome="allowed") > 0


async def test_a_redis_that_dies_stops_everybody_where_that_is_wanted(tmp_path: Path, server: RedisServer) -> None:
    variables: dict[str, Any] = {
        "MAX_TOKENS_PER_MIN": "1000",
        "REDIS_URL": server.url,
        "QUOTA_ON_STORE_ERROR": "deny",
        "ATTACH_DATA_DIR": str(tmp_path),
    }
    async with standing(OLLAMA.script(), **variables) as stand:
        body = OLLAMA.ask(stream=False)
        assert (await stand.ask("POST", OLLAMA.path, body=body)).status == 200
        await server.kill()
        refused = await stand.ask("POST", OLLAMA.path, body=body)
        assert (refused.status, refused.seen) == (503, None)
        assert json.loads(refused.body)["code"] == "quota_unavailable"
        usage = (await stand.ask("GET", "/usage")).json()
    assert (usage["quota"], usage["total"]["requests"]) == (None, 1)
