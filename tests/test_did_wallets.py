"""What others' libraries sign (npm did-jwt for DIDs, viem for a wallet) opens a chat that streams."""

import asyncio
import json
import shutil
import subprocess
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.dids import AUDIENCE, wallet_bearer
from tests.gateways import standing
from tests.requirements import require
from tests.servers import Connection, Received, bearer, client_of

FOLDER = Path(__file__).parent / "did_wallets"
PIECES = (b'{"message":{"content":"Hel"},"done":false}\n', b'{"message":{"content":"lo"},"done":true}\n')

pytestmark = pytest.mark.timeout(300)  # The first run installs the libraries.


@dataclass
class Chat:
    """A gateway where every DID may sign in, and an engine that answers in two pieces.

    Attributes:
        finish: The second piece is not made before this is set.
    """

    client: httpx.AsyncClient
    received: list[Received]
    finish: asyncio.Event = field(default_factory=asyncio.Event)

    async def streams_for(self, token: str) -> str:
        """Have a chat with `token`; the user that the engine was told, once the answer came piece by piece."""
        self.finish.clear()
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
        async with self.client.stream("POST", "/api/chat", json=body, headers=bearer(token)) as answer:
            assert answer.status_code == 200
            pieces = answer.aiter_raw()
            assert await anext(pieces) == PIECES[0]
            self.finish.set()  # Only now may the engine go on.
            assert b"".join([piece async for piece in pieces]) == PIECES[1]
        seen = self.received[-1]
        assert seen.all("authorization") == []
        return seen.one("x-attach-user").decode()


@pytest.fixture
async def chat(tmp_path: Path) -> AsyncIterator[Chat]:
    async def answer(received: Received, connection: Connection) -> None:
        await connection.head(content_type="application/x-ndjson", transfer_encoding="chunked")
        await connection.chunk(PIECES[0])
        await chatting.finish.wait()
        await connection.chunk(PIECES[1])
        await connection.last_chunk()

    async with (
        standing(answer, PUBLIC_URL=AUDIENCE, DID_LOGIN="open", ATTACH_DATA_DIR=str(tmp_path / ".attach")) as stand,
        client_of(stand.gateway.url) as client,
    ):
        chatting = Chat(client, stand.engine.received)
        yield chatting


@pytest.fixture(scope="session")
def installed() -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    require("node", node is not None and npm is not None, "Node and npm are not installed")
    if not all((FOLDER / "node_modules" / name).exists() for name in ("did-jwt", "viem")):
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
        install = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False, timeout=240)
        require("node", install.returncode == 0, f"npm could not install did-jwt and viem: {install.stderr[-300:]}")


async def signed(*options: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec("node", "sign.mjs", *options, cwd=FOLDER, stdout=PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    made: dict[str, Any] = json.loads(output)
    return made


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("alg", "beginning"), [("EdDSA", "did:key:z6Mk"), ("ES256K", "did:key:zQ3s")])
async def test_npm_did_jwt_opens_a_streamed_chat(chat: Chat, alg: str, beginning: str) -> None:
    made = await signed("did-jwt", alg, AUDIENCE)
    assert made["did"].startswith(beginning)
    assert await chat.streams_for(made["token"]) == made["did"]
    assert await chat.streams_for(f"{made['did']}.{made['token']}") == made["did"]


@pytest.mark.usefixtures("installed")
async def test_npm_did_jwt_for_another_gateway_opens_nothing(chat: Chat) -> None:
    made = await signed("did-jwt", "EdDSA", "https://elsewhere.test")
    assert (await chat.client.get("/x", headers=bearer(made["token"]))).status_code == 401


@pytest.mark.usefixtures("installed")
async def test_a_wallet_opens_a_streamed_chat(chat: Chat) -> None:
    challenge = (await chat.client.get("/auth/nonce")).json()
    made = await signed("siwe", json.dumps(challenge))
    did = f"did:pkh:eip155:1:{made['address']}"
    token = wallet_bearer(made["message"].encode(), bytes.fromhex(made["signature"][2:]))
    assert await chat.streams_for(token) == did
    traded = await chat.client.post("/auth/siwe", json={name: made[name] for name in ("message", "signature")})
    assert traded.json()["user"] == did
    assert await chat.streams_for(traded.json()["access_token"]) == did
