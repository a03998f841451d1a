"""A client that others wrote (the `mcp` Python SDK) finds its way from our challenge to the issuer."""

import asyncio
import json
import shutil
import subprocess
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.gateways import standing
from tests.requirements import require

pytestmark = pytest.mark.timeout(240)  # The SDK is installed, in an environment of its own.

FOLLOW = """
import json, sys
import anyio, httpx2
from mcp.client.auth import utils

async def follow(base):
    async with httpx2.AsyncClient(trust_env=False) as client:
        refused = await client.post(base + "/mcp", json={})
        place = utils.extract_resource_metadata_from_www_auth(refused)
        found = await utils.handle_protected_resource_response(await client.get(place))
        print(json.dumps({
            "status": refused.status_code,
            "scope": utils.extract_scope_from_www_auth(refused),
            "resource": str(found.resource),
            "servers": [str(server) for server in found.authorization_servers],
        }))

anyio.run(follow, sys.argv[1])
"""


@pytest.fixture
def python(tmp_path: Path) -> str:
    """The interpreter of an environment that has the SDK."""
    uv = shutil.which("uv")
    require("mcp", uv is not None, "uv is not installed")
    python = str(tmp_path / "bin" / "python")
    for command in (["venv", "-q", str(tmp_path)], ["pip", "install", "-q", "--python", python, "mcp>=2.3"]):
        done = subprocess.run([str(uv), *command], capture_output=True, text=True, check=False, timeout=200)
        require("mcp", done.returncode == 0, f"uv could not install the mcp SDK: {done.stderr[-300:]}")
    return python


async def test_the_mcp_sdk_follows_the_challenge(python: str) -> None:
    async with standing(SCOPE_RULES="/mcp=chat:run") as stand:
        base = f"http://localhost:{stand.gateway.port}"
        process = await asyncio.create_subprocess_exec(python, "-c", FOLLOW, base, stdout=PIPE)
        output, _ = await process.communicate()
    found = json.loads(output)
    assert [server.rstrip("/") for server in found.pop("servers")] == [stand.issuer.url]
    assert found == {"status": 401, "scope": "chat:run", "resource": f"{base}/mcp"}
