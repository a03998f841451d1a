"""An answer that its client has in full is billed once, whatever dies meanwhile.

`ATTACH_TEST_SCALE=full` runs 2,000 requests and kills the gateway ten times.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.dialects import COMPLETION, OLLAMA, OPENAI, PROMPT
from tests.issuer import Issuer
from tests.open_meter import KEY, OpenMeter, failing
from tests.scale import scaled
from tests.servers import Connection, Engine, Received, bearer, environ_for, spawn, started

REQUESTS = scaled(60, 2000)
KILLS = scaled(1, 10)
AT_ONCE = 16


@dataclass
class Clients:
    """Callers that ask until `wanted` answers have come whole.

    Attributes:
        url: Where the gateway is just now.
        up: Set while there is one.
        whole: The ids of the requests whose answers came in full.
        broken: How many did not.
    """

    token: str
    wanted: int
    url: str = ""
    up: asyncio.Event = field(default_factory=asyncio.Event)
    whole: list[str] = field(default_factory=list)
    broken: int = 0

    async def ask(self, number: int) -> None:
        dialect, stream = (OLLAMA, OPENAI)[number % 2], number % 3 != 0
        while len(self.whole) < self.wanted:
            await self.up.wait()
            async with httpx.AsyncClient(base_url=self.url, trust_env=False, verify=False, timeout=30) as client:
                await self._ask_on(client, dialect.path, dialect.ask(stream=stream))

    async def _ask_on(self, client: httpx.AsyncClient, path: str, body: bytes) -> None:
        """Until the gateway is gone."""
        while len(self.whole) < self.wanted:
            try:
                answer = await client.post(path, content=body, headers=bearer(self.token))
            except httpx.TransportError:
                self.broken += 1
                await asyncio.sleep(0.01)
                return
            if answer.status_code == 200:
                self.whole.append(answer.headers["x-request-id"])
            else:  # Refused, and so not metered: a gateway that has just started may lack its issuer's keys.
                self.broken += 1
                await asyncio.sleep(0.1)

    async def have(self, wanted: int) -> None:
        while True:
            if len(self.whole) >= wanted:
                return
            await asyncio.sleep(0.005)


async def either(received: Received, connection: Connection) -> None:
    dialect = OLLAMA if received.target.startswith(b"/api/") else OPENAI
    await dialect.script()(received, connection)


@asynccontextmanager
async def sink(meter: OpenMeter) -> AsyncIterator[str]:
    async with Engine(meter.script) as server:
        yield server.url


async def in_the_sink(meter: OpenMeter, ids: set[str]) -> None:
    async with asyncio.timeout(scaled(45, 600)):
        while True:
            if ids <= meter.events.keys():
                return
            await asyncio.sleep(0.05)


@pytest.mark.timeout(scaled(60, 1800))
async def test_what_a_client_got_in_full_is_billed_once_though_the_gateway_is_killed(tmp_path: Path) -> None:
    chance = random.Random(7)
    meter = OpenMeter(refuse=failing(0.3), loses=lambda number: number % 7 == 0, delay=0.02)
    async with Issuer.start() as issuer, Engine(either) as engine, sink(meter) as url:
        clients = Clients(token=issuer.token(), wanted=REQUESTS)
        environ = environ_for(
            issuer,
            engine.url,
            USAGE_METERING="openmeter",
            OPENMETER_URL=url,
            OPENMETER_API_KEY=KEY,
            ATTACH_DATA_DIR=str(tmp_path / "data"),
            ACCESS_LOG="off",
        )
        async with asyncio.TaskGroup() as asking:
            callers = [asking.create_task(clients.ask(number)) for number in range(AT_ONCE)]
            for kill in range(KILLS):
                async with spawn("--port", "0", environ=environ, cwd=tmp_path) as process:
                    clients.url = await started(process)
                    clients.up.set()
                    await clients.have(REQUESTS * (kill + 1) // (KILLS + 1) + chance.randrange(AT_ONCE))
                    clients.up.clear()
                    process.kill()
                    await process.wait()
            async with spawn("--port", "0", environ=environ, cwd=tmp_path) as process:
                clients.url = await started(process)
                clients.up.set()
                await asyncio.wait(callers)
                await in_the_sink(meter, {f"{one}-{kind}" for one in clients.whole for kind in ("input", "output")})
    assert len(set(clients.whole)) == len(clients.whole) >= REQUESTS
    counts = {(event["data"]["type"], event["data"]["tokens"]) for event in meter.events.values()}
    assert counts == {("input", PROMPT), ("output", COMPLETION)}
    again = sum(times > 1 for times in meter.taken.values())
    print(  # noqa: T201 - read with pytest -s
        f"\n{len(clients.whole)} whole answers, {clients.broken} broken by {KILLS} kills: {len(meter.events)} events in"
        f" the sink, {again} of them sent more than once, in {meter.requests} requests"
    )
