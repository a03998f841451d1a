"""Clients that others wrote (a2a-sdk 1.x and 0.3, @a2a-js/sdk) find an agent of a2a-sdk as they would without us."""

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


@pytest.fixture(scope="session")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an npm project that has @a2a-js/sdk."""
    npm = shutil.which("npm")
    require("node", npm is not None and shutil.which("node") is not None, "Node and npm are not installed")
    folder = tmp_path_factory.mktemp("javascript")
    (folder / "package.json").write_text("{}")
    options = ("--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts")
    command = [str(npm), "install", *options, "@a2a-js/sdk@1.3.0"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=200)
    require("node", done.returncode == 0, f"npm could not install @a2a-js/sdk: {done.stderr[-300:]}")
    return folder


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
    def places(self) -> list[str]:
        """What the card must lead to."""
        return [f"{self.url}/jsonrpc", f"{self.url}/rest"]

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
    # How much of the task was told before one subscribed is chance; it begins with the task and ends with its end.
    found["subscribe"] = [found["subscribe"][0], found["subscribe"][-1]]
    return found


# What each client sees of the agent itself, without a gateway: `python client10.py AGENT none BINDING AGENT/control`.
NEW = {
    "send": ["task", "TASK_STATE_COMPLETED", "echo: hello"],
    "stream": ["task", "status_update", "artifact_update", "artifact_update", "status_update"],
    "get": "TASK_STATE_COMPLETED",
    "list": [2, 2],
    "cancel": "TASK_STATE_CANCELED",
    "subscribe": ["task", "status_update"],
    "push": [True, True],
    "push_left": 0,
    "unknown": "TaskNotFoundError",
}
OLD = {
    "send": ["completed", "echo: hello"],
    "stream": ["task", "status-update", "artifact-update", "artifact-update", "status-update"],
    "get": "completed",
    "cancel": "canceled",
    "subscribe": ["task", "status-update"],
    "push_again": True,
    "push": True,
}
JAVASCRIPT = {
    "send": [3, "echo: hello"],
    "stream": ["task", "statusUpdate", "artifactUpdate", "artifactUpdate", "statusUpdate"],
    "get": 3,
    "cancel": 5,
    "subscribe": ["task", "statusUpdate"],
    "push_again": True,
    "push": True,
}


@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
async def test_a_client_of_1_0_does_everything_through_the_gateway(sdk10: str, tmp_path: Path, binding: str) -> None:
    async with meeting(sdk10, tmp_path) as met:
        found = await run(sdk10, "client10.py", [met.url, met.stand.token, binding, met.control])
        assert (found.pop("interfaces"), found.pop("extended")) == (met.places, met.places)
        assert found == NEW
        await no_token_arrived(met)


@pytest.mark.parametrize(
    ("binding", "unknown"), [("JSONRPC", "A2AClientJSONRPCError"), ("HTTP+JSON", "A2AClientHTTPError")]
)
async def test_a_client_of_0_3_does_everything_through_the_gateway(
    sdk10: str, sdk03: str, tmp_path: Path, binding: str, unknown: str
) -> None:
    async with meeting(sdk10, tmp_path) as met:
        found = await run(sdk03, "client03.py", [met.url, met.stand.token, binding, met.control])
        assert found == {**OLD, "unknown": unknown, "interfaces": met.places}
        await no_token_arrived(met)


@pytest.mark.parametrize(
    ("binding", "unknown"), [("JSONRPC", "JsonRpcTaskNotFoundError"), ("HTTP+JSON", "RestTaskNotFoundError")]
)
async def test_a_client_in_javascript_does_everything_through_the_gateway(
    sdk10: str, javascript: Path, tmp_path: Path, binding: str, unknown: str
) -> None:
    async with meeting(sdk10, tmp_path) as met:
        found = await run("node", "client.mjs", [met.url, met.stand.token, binding, met.control, str(javascript)])
        assert found == {**JAVASCRIPT, "unknown": unknown}
        await no_token_arrived(met)


async def no_token_arrived(met: Meeting) -> None:
    """Neither the user's token nor any part of it is in what the agent got; who he is, is."""
    entries = [entry for entry in await met.recorded() if any(name == "x-attach-user" for name, _ in entry["headers"])]
    assert len(entries) >= 8
    for part in met.stand.token.split("."):
        assert part[:40] not in json.dumps(entries)
    assert {value for entry in entries for name, value in entry["headers"] if name == "x-attach-user"} == {"alice"}
