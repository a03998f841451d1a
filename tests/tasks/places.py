"""A gateway with an engine, an agent, and users who hand tasks in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.issuer import Issuer
from tests.servers import Connection, Engine, Gateway, Received, Script, bearer, client_of, serve_gateway, settings_for

ANSWER = {"message": {"role": "assistant", "content": "Paris."}, "done": True}
INPUT = {"model": "m", "messages": [{"role": "user", "content": "Capital of France?"}]}
WORKER_KEY = "w" * 32


async def chat(received: Received, connection: Connection) -> None:
    await connection.answer(json.dumps(ANSWER).encode())


@dataclass
class Place:
    """Everything around one gateway, and Alice's way to it."""

    issuer: Issuer
    engine: Engine
    agent: Engine
    gateway: Gateway
    client: httpx.AsyncClient

    async def send(self, body: Any = None, *, user: str = "alice", **members: Any) -> str:
        """Hand in a task that is accepted; its id."""
        answer = await self.ask("POST", "/a2a/tasks/send", user=user, json=body or {"input": INPUT, **members})
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert told["state"] == "queued"
        return str(told["task_id"])

    async def ask(self, method: str, path: str, *, user: str = "alice", **arguments: Any) -> httpx.Response:
        arguments.setdefault("headers", {})
        arguments["headers"] = {**bearer(self.issuer.token(user)), **arguments["headers"]}
        return await self.client.request(method, path, **arguments)

    async def status(self, task: str, *, user: str = "alice") -> dict[str, Any]:
        answer = await self.ask("GET", f"/a2a/tasks/status/{task}", user=user)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def ended(self, task: str, *, user: str = "alice") -> dict[str, Any]:
        """Wait for the end of a task, as its stream of events tells it. What it is then."""
        async with asyncio.timeout(50):
            headers = bearer(self.issuer.token(user))
            async with self.client.stream("GET", f"/a2a/tasks/{task}/events", headers=headers) as events:
                assert events.status_code == 200
                async for _ in events.aiter_lines():
                    pass
        told = await self.status(task, user=user)
        assert told["state"] in ("done", "error", "canceled")
        return told


@asynccontextmanager
async def place(
    directory: Path,
    *,
    engine: Script = chat,
    agent: Script = chat,
    environ: Mapping[str, str] | None = None,
    **variables: str,
) -> AsyncIterator[Place]:
    """`{agent}` in a variable is the agent's URL."""
    async with Issuer.start() as issuer, Engine(engine) as model, Engine(agent) as other:
        given = {"A2A_AGENTS": "coder={agent}/run", "A2A_WORKER_KEY": WORKER_KEY, **variables, **(environ or {})}
        told = {name: value.replace("{agent}", other.url) for name, value in given.items()}
        settings = settings_for(issuer, model.url, ATTACH_DATA_DIR=str(directory / "data"), **told)
        async with serve_gateway(settings) as gateway, client_of(gateway.url) as client:
            yield Place(issuer, model, other, gateway, client)


def calls(server: Engine) -> list[Received]:
    """What the server was asked, the gateway's own probes apart."""
    return [received for received in server.received if received.method == b"POST"]
