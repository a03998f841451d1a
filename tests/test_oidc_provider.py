"""Tokens of an OpenID provider that others wrote (npm oidc-provider) are taken, whatever it signs with."""

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from auth import InvalidToken, OIDCSettings, OIDCVerifier
from tests.requirements import require

FOLDER = Path(__file__).parent / "oidc_provider"
ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "EdDSA")
RESOURCE = "https://gateway.test/"

pytestmark = pytest.mark.timeout(300)  # The first run installs the provider.


class Provider:
    """The provider's process, and a client of it."""

    def __init__(self, process: asyncio.subprocess.Process, issuer: str, client: httpx.AsyncClient) -> None:
        self.issuer = issuer
        self._process = process
        self._client = client

    async def token(self, kind: str) -> str:
        """An access token as the provider makes it for the resource of that kind."""
        form = {"grant_type": "client_credentials", "scope": "chat:run", "resource": RESOURCE + kind}
        answer = await self._client.post(f"{self.issuer}/token", data=form, auth=("robot", "robot-secret"))
        token: str = answer.raise_for_status().json()["access_token"]
        return token

    async def order(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())
        assert await said(self._process) == {"done": command}


async def said(process: asyncio.subprocess.Process) -> dict[str, str]:
    """The provider's next line to us, among its notices to its developer."""
    assert process.stdout is not None
    async for line in process.stdout:
        if line.startswith(b"{"):
            members: dict[str, str] = json.loads(line)
            return members
    pytest.fail("the provider ended")


@pytest.fixture(scope="session")
def installed() -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    require("node", node is not None and npm is not None, "Node and npm are not installed")
    if not (FOLDER / "node_modules" / "oidc-provider").exists():
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
        install = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False, timeout=240)
        require("node", install.returncode == 0, f"npm could not install oidc-provider: {install.stderr[-300:]}")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        yield client


@pytest.fixture
async def provider(installed: None, client: httpx.AsyncClient) -> AsyncIterator[Provider]:
    process = await asyncio.create_subprocess_exec(
        "node",
        "provider.mjs",
        cwd=FOLDER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin is not None
    try:
        yield Provider(process, (await said(process))["issuer"], client)
    finally:
        process.stdin.close()
        await process.wait()


@pytest.fixture
async def verifier(provider: Provider, client: httpx.AsyncClient) -> AsyncIterator[OIDCVerifier]:
    audiences = tuple(RESOURCE + alg for alg in ALGORITHMS)
    trust = OIDCSettings(issuer=provider.issuer, audiences=audiences, algorithms=ALGORITHMS)
    async with contextlib.aclosing(OIDCVerifier(trust, client)) as verifier:
        yield verifier


async def test_its_tokens_are_taken_with_every_algorithm(provider: Provider, verifier: OIDCVerifier) -> None:
    for alg in ALGORITHMS:
        identity = await verifier.verify(await provider.token(alg))
        assert (identity.user, identity.issuer) == ("robot", provider.issuer)
        assert identity.claims["aud"] == RESOURCE + alg
        assert identity.claims["scope"] == "chat:run"


async def test_its_opaque_tokens_are_not_taken_for_signed_ones(provider: Provider, verifier: OIDCVerifier) -> None:
    with pytest.raises(InvalidToken) as refused:
        await verifier.verify(await provider.token("opaque"))
    assert refused.value.reason == "opaque"


async def test_its_keys_can_be_rotated_with_overlap(provider: Provider, verifier: OIDCVerifier) -> None:
    old = await provider.token("ES256")
    await verifier.verify(old)
    await provider.order("rotate")
    new = await provider.token("ES256")
    for token in (new, old):
        assert (await verifier.verify(token)).user == "robot"


async def test_it_can_come_back_with_new_keys_under_the_old_names(provider: Provider, verifier: OIDCVerifier) -> None:
    old = await provider.token("RS256")
    await verifier.verify(old)
    await provider.order("replace")
    assert (await verifier.verify(await provider.token("RS256"))).user == "robot"
    with pytest.raises(InvalidToken) as refused:
        await verifier.verify(old)
    assert refused.value.reason == "signature"
