"""Clients and agents that others wrote (a2a-sdk 1.x and 0.3) meet through the gateway as they would without it."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateways import Stand, standing
from tests.requirements import require

PROGRAMS = Path(__file__).parent / "a2a_stock"

pytestmark = pytest.mark.timeout(240)  # Each SDK is installed, in an environment of its own.


def environment(directory: Path, *packages: str) -> str:
    """The interpreter of a new environment with `packages`."""
    uv = shutil.which("uv")
    require("a2a-sdk", uv is not None, "uv is not installed")
    python = str(directory / "bin" / "python")
    for command in (["venv", "-q", str(directory)], ["pip", "install", "-q", "--python", python, *packages]):
        done = subprocess.run([str(uv), *command], capture_output=True, text=True, check=False, timeout=200)
        require("a2a-sdk", done.returncode == 0, f"uv could not install {packages}: {done.stderr[-300:]}")
    return python


@pytest.fixture(scope="session")
def sdk10(tmp_path_factory: pytest.TempPathFactory) -> str:
    return environment(tmp_path_factory.mktemp("sdk10"), "a2a-sdk[http-server]==1.3.0", "uvicorn")


@pytest.fixture(scope="session")
def sdk03(tmp_path_factory: pytest.TempPathFactory) -> str:
    return environment(tmp_path_factory.mktemp("sdk03"), "a2a-sdk==0.3.26")


@dataclass
class Meeting:
    """A stock agent behind a gateway."""

    stand: Stand
    agent_url: str
    direct: httpx.AsyncClient

    @property
    def url(self) -> str:
        return f"{self.stand.gateway.url}/a2a/agents/echo"

    @property
    def control(self) -> str:
        return f"{self.agent_url}/control"

    async def recorded(self) -> list[dict[str, Any]]:
        """Every request that the agent got."""
        entries: list[dict[str, Any]] = (await self.direct.get(f"{self.control}/recorded")).json()
        return entries


@asynccontextmanager
async def meeting(python: str, data_dir: Path) -> AsyncIterator[Meeting]:
    """Run the agent and a gateway in front of it for as long as the block lasts."""
    agent = await asyncio.create_subprocess_exec(python, str(PROGRAMS / "agent.py"), stdout=PIPE, cwd=data_dir)
    try:
        assert agent.stdout is not None
        agent_url = (await agent.stdout.readline()).decode().strip()
        agents = json.dumps({"echo": {"url": agent_url, "kind": "a2a"}})
        targets = f"{agent_url}/control/push"
        async with (
            standing(ATTACH_DATA_DIR=str(data_dir), A2A_AGENTS=agents, A2A_TARGETS=targets) as stand,
            httpx.AsyncClient(trust_env=False, timeout=20) as direct,
        ):
            yield Meeting(stand, agent_url, direct)
    finally:
        if agent.returncode is None:
            agent.kill()
        await agent.wait()


async def run(python: str, program: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The object that a client prints. It runs in its own folder: the SDK's name is that of a package of ours."""
    process = await asyncio.create_subprocess_exec(
        python, str(PROGRAMS / program), *arguments, stdout=PIPE, stderr=PIPE, cwd=PROGRAMS
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-3000:]
    found: dict[str, Any] = json.loads(output)
    return found


@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
async def test_a_client_of_1_0_does_everything_through_the_gateway(sdk10: str, tmp_path: Path, binding: str) -> None:
    async with meeting(sdk10, tmp_path) as met:
        before = await run(sdk10, "client10.py", [met.agent_url, "none", binding, met.control])
        found = await run(sdk10, "client10.py", [met.url, met.stand.token, binding, met.control])
        places = [f"http://localhost:{met.stand.gateway.port}/a2a/agents/echo{path}" for path in ("/jsonrpc", "/rest")]
        assert (found.pop("interfaces"), found.pop("extended")) == (places, places)
        del before["interfaces"], before["extended"]
        before["list"] = [2, 2]  # Of seven that the agent has by then.
        assert found == before
        assert found["stream"][0] == "task"
        assert found["cancel"] == "TASK_STATE_CANCELED"
        assert found["push"] == [True, True]
        await no_token_arrived(met)


async def no_token_arrived(met: Meeting) -> None:
    """Neither the user's token nor any part of it is in what the agent got; who he is, is."""
    entries = [entry for entry in await met.recorded() if any(name == "x-attach-user" for name, _ in entry["headers"])]
    assert len(entries) >= 10
    for part in met.stand.token.split("."):
        assert part[:40] not in json.dumps(entries)
    assert {value for entry in entries for name, value in entry["headers"] if name == "x-attach-user"} == {"alice"}
