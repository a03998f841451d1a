"""Tokens of an OpenID provider that others wrote (npm oidc-provider) are taken, whatever it signs with."""

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from auth import InvalidToken, OIDCSettings, OIDCVerifier
from auth.jwks import COOL_DOWN
from auth.jws import parse
from tests.clock import Clock
from tests.gateways import Stand, standing
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
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        yield client


@asynccontextmanager
async def running(client: httpx.AsyncClient) -> AsyncIterator[Provider]:
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
async def provider(installed: None, client: httpx.AsyncClient) -> AsyncIterator[Provider]:
    async with running(client) as provider:
        yield provider


@pytest.fixture
async def abroad(installed: None, client: httpx.AsyncClient) -> AsyncIterator[Provider]:
    """Another provider, whose tokens the first one can be told to trust."""
    async with running(client) as provider:
        yield provider


@asynccontextmanager
async def gateway_of(provider: Provider, **variables: Any) -> AsyncIterator[Stand]:
    """A gateway that takes this provider's tokens."""
    async with standing(
        OIDC_ISSUER=provider.issuer,
        OIDC_AUD=",".join(RESOURCE + alg for alg in ALGORITHMS),
        OIDC_ALGORITHMS=",".join(ALGORITHMS),
        SCOPE_RULES="/v1/*=chat:run",
        **variables,
    ) as stand:
        yield stand


@pytest.fixture
async def verifier(provider: Provider, client: httpx.AsyncClient, clock: Clock) -> AsyncIterator[OIDCVerifier]:
    audiences = tuple(RESOURCE + alg for alg in ALGORITHMS)
    trust = OIDCSettings(issuer=provider.issuer, audiences=audiences, algorithms=ALGORITHMS)
    async with contextlib.aclosing(OIDCVerifier(trust, client, clock)) as verifier:
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


async def test_its_keys_can_be_rotated_with_overlap(provider: Provider, verifier: OIDCVerifier, clock: Clock) -> None:
    old = [await provider.token(alg) for alg in ALGORITHMS]
    for token in old:
        await verifier.verify(token)
    await provider.order("rotate")
    new = [await provider.token(alg) for alg in ALGORITHMS]
    assert {parse(token).kid for token in old}.isdisjoint(parse(token).kid for token in new)
    for token in (*new, *old):
        assert (await verifier.verify(token)).user == "robot"
    # The overlap ends: only the newest keys are published any more.
    for command in ("rotate", "retire"):
        await provider.order(command)
    clock.advance(COOL_DOWN)
    for alg in ALGORITHMS:
        assert (await verifier.verify(await provider.token(alg))).user == "robot"
    for token in (*new, *old):
        with pytest.raises(InvalidToken) as refused:
            await verifier.verify(token)
        assert refused.value.reason == "unknown_kid"


async def test_it_can_come_back_with_new_keys_under_the_old_names(provider: Provider, verifier: OIDCVerifier) -> None:
    old = await provider.token("RS256")
    await verifier.verify(old)
    await provider.order("replace")
    assert (await verifier.verify(await provider.token("RS256"))).user == "robot"
    with pytest.raises(InvalidToken) as refused:
        await verifier.verify(old)
    assert refused.value.reason == "signature"


async def test_its_tokens_open_the_gateway_before_and_after_a_rotation(provider: Provider) -> None:
    async with gateway_of(provider) as stand:
        before = {alg: await provider.token(alg) for alg in ALGORITHMS}
        for alg, token in before.items():
            answer = await stand.ask("POST", "/v1/chat/completions", body=b"{}", token=token)
            assert (answer.status, answer.one("x-attach-user")) == (200, b"robot"), alg
            assert answer.seen is not None
        await provider.order("rotate")
        for alg in ALGORITHMS:
            for token in (await provider.token(alg), before[alg]):
                answer = await stand.ask("POST", "/v1/chat/completions", body=b"{}", token=token)
                assert (answer.status, answer.one("x-attach-user")) == (200, b"robot"), alg


async def test_it_trades_tokens_of_another_provider_for_its_own(provider: Provider, abroad: Provider) -> None:
    await provider.order(f"trust {abroad.issuer}")
    for number, alg in enumerate(ALGORITHMS):
        exchange = {
            "EXCHANGE_URL": f"{provider.issuer}/token",
            "EXCHANGE_ISSUERS": abroad.issuer,
            "EXCHANGE_CLIENT_ID": "robot",
            "EXCHANGE_CLIENT_SECRET": "robot-secret",
            "EXCHANGE_AUDIENCE": RESOURCE + alg,
        }
        theirs = await abroad.token(ALGORITHMS[number - 1])
        async with gateway_of(provider, **exchange) as stand:
            answer = await stand.ask("POST", "/v1/chat/completions", body=b"{}", token=theirs)
            own = await stand.ask("POST", "/v1/chat/completions", body=b"{}", token=await provider.token(alg))
            forged = theirs[:-8] + "A" * 8
            refused = await stand.ask("POST", "/v1/chat/completions", body=b"{}", token=forged)
        # Who calls, and what he may, is what the provider says that the gateway trusts.
        assert (answer.status, answer.one("x-attach-user")) == (200, b"robot from abroad"), alg
        assert answer.seen is not None
        assert not answer.seen.all("authorization")
        assert own.one("x-attach-user") == b"robot"
        assert (refused.status, refused.code, refused.seen) == (401, "invalid_token", None)


async def test_what_it_does_not_trade_opens_nothing(provider: Provider, abroad: Provider) -> None:
    exchange = {
        "EXCHANGE_URL": f"{provider.issuer}/token",
        "EXCHANGE_ISSUERS": abroad.issuer,
        "EXCHANGE_CLIENT_ID": "robot",
        "EXCHANGE_CLIENT_SECRET": "robot-secret",
        "EXCHANGE_AUDIENCE": RESOURCE + "ES256",
    }
    async with gateway_of(provider, **exchange) as stand:  # The provider was not told to trust anybody.
        refused = await stand.ask("GET", "/v1/models", token=await abroad.token("ES256"))
        assert (refused.status, refused.code, refused.seen) == (401, "invalid_token", None)
    async with gateway_of(provider, **{**exchange, "EXCHANGE_CLIENT_SECRET": "wrong"}) as stand:
        unjudged = await stand.ask("GET", "/v1/models", token=await abroad.token("ES256"))
        assert (unjudged.status, unjudged.code, unjudged.seen) == (503, "issuer_unavailable", None)
