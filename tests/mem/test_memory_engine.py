"""What a real model answers is in memory as the client saw it, by stock clients of both APIs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import ollama
import openai
import pytest

from attach.local_engine import LocalEngine
from tests.issuer import Issuer
from tests.mem.test_memory_routes import remembering
from tests.servers import Gateway, bearer, client_of, serve_gateway, settings_for

QUESTION = "Name one animal that lives in the sea."


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer.start() as issuer:
        yield issuer


@pytest.fixture
async def gateway(issuer: Issuer, local_engine: LocalEngine, tmp_path: Path) -> AsyncIterator[Gateway]:
    settings = settings_for(
        issuer,
        local_engine.url,
        ENGINE_API_KEY=local_engine.api_key,
        MEM_BACKEND="sqlite",
        ATTACH_DATA_DIR=str(tmp_path),
        USAGE_METERING="prometheus",
    )
    async with serve_gateway(settings) as gateway:
        yield gateway


async def the_event(gateway: Gateway, token: str) -> dict[str, Any]:
    async with client_of(gateway.url) as client:
        (event,) = (await client.get("/mem/events", headers=bearer(token))).json()["events"]
    assert isinstance(event, dict)
    return event


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_openai(gateway: Gateway, issuer: Issuer, local_engine: LocalEngine, stream: bool) -> None:
    token = issuer.token()
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=token) as client:
        ask: dict[str, Any] = {
            "model": local_engine.models[0],
            "messages": [{"role": "user", "content": QUESTION}],
            "max_tokens": 24,
        }
        if stream:
            pieces = await client.chat.completions.create(**ask, stream=True)
            seen = "".join([piece.choices[0].delta.content or "" async for piece in pieces if piece.choices])
        else:
            seen = (await client.chat.completions.create(**ask)).choices[0].message.content
    event = await the_event(gateway, token)
    assert seen
    assert (event["answer"], event["state"], event["event"]) == (seen, "done", "chat")
    assert event["messages"] == ask["messages"]
    assert event["tokens_in"] > 0
    assert 0 < event["tokens_out"] <= 24
    assert len(event["session_id"]) == 16


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_ollama(tmp_path: Path, stream: bool) -> None:
    """The embedded engine does not speak as Ollama does: here a scripted one answers."""
    ask: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": QUESTION}]}
    async with remembering(tmp_path, USAGE_METERING="prometheus") as (stand, _):
        client = ollama.AsyncClient(host=stand.gateway.url, headers=bearer(stand.token))
        async with client:
            if stream:
                seen = "".join([piece.message.content or "" async for piece in await client.chat(**ask, stream=True)])
            else:
                seen = (await client.chat(**ask)).message.content or ""
        event = await the_event(stand.gateway, stand.token)
    assert seen
    assert (event["answer"], event["state"], event["path"]) == (seen, "done", "/api/chat")
    assert event["messages"] == ask["messages"]
    assert (event["tokens_in"], event["tokens_out"]) == (7, 3)
    assert len(event["session_id"]) == 16
