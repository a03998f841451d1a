"""What is asked and answered is there for its owner, through a whole gateway."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateways import Stand, standing
from tests.servers import Connection, Received, bearer, client_of

CHAT = {"model": "m", "messages": [{"role": "user", "content": "What do turtles eat?"}], "stream": False}


async def answering(received: Received, connection: Connection) -> None:
    """An engine that answers chats in Ollama's way and OpenAI's, streamed or not."""
    asked = json.loads(received.body or b"{}")
    if received.target == b"/api/chat":
        done = {"done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3}
        if asked.get("stream", True):
            await connection.head(content_type="application/x-ndjson", transfer_encoding="chunked")
            for word in ("Sea ", "grass"):
                line = {"model": "m", "message": {"role": "assistant", "content": word}, "done": False}
                await connection.chunk(json.dumps(line).encode() + b"\n")
            last = {"model": "m", "message": {"role": "assistant", "content": "."}, **done}
            await connection.chunk(json.dumps(last).encode() + b"\n")
            await connection.last_chunk()
        else:
            whole = {"model": "m", "message": {"role": "assistant", "content": "Sea grass."}, **done}
            await connection.answer(json.dumps(whole).encode())
    elif received.target == b"/v1/chat/completions":
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        if asked.get("stream"):
            await connection.head(content_type="text/event-stream", transfer_encoding="chunked")
            for word in ("Sea ", "grass", "."):
                event = {"model": "m", "choices": [{"index": 0, "delta": {"content": word}}]}
                await connection.chunk(b"data: " + json.dumps(event).encode() + b"\n\n")
            await connection.chunk(b'data: {"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n')
            await connection.chunk(b"data: [DONE]\n\n")
            await connection.last_chunk()
        else:
            message = {"role": "assistant", "content": "Sea grass."}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            await connection.answer(json.dumps({"model": "m", "choices": [choice], "usage": usage}).encode())
    else:
        await connection.answer(b"{}")


@asynccontextmanager
async def remembering(directory: Path, **variables: str) -> AsyncIterator[tuple[Stand, httpx.AsyncClient]]:
    async with AsyncExitStack() as stack:
        options: dict[str, Any] = {"MEM_BACKEND": "sqlite", "ATTACH_DATA_DIR": str(directory), **variables}
        stand = await stack.enter_async_context(standing(answering, **options))
        client = await stack.enter_async_context(client_of(stand.gateway.url))
        client.headers.update(bearer(stand.token))
        yield stand, client


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[tuple[Stand, httpx.AsyncClient]]:
    async with remembering(tmp_path) as running:
        yield running


Running = tuple[Stand, httpx.AsyncClient]


async def events(client: httpx.AsyncClient, **query: str | int) -> list[dict[str, Any]]:
    answer = await client.get("/mem/events", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["events"]
    return found


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_an_exchange_is_remembered_as_it_was(gateway: Running, path: str, stream: bool) -> None:
    _, client = gateway
    answer = await client.post(path, json={**CHAT, "stream": stream}, headers={"X-Attach-Project": "zoo"})
    assert answer.status_code == 200
    (event,) = await events(client)
    assert event["event"] == "chat"
    assert event["messages"] == CHAT["messages"]
    assert event["answer"] == "Sea grass."
    assert (event["state"], event["model"], event["path"], event["project"]) == ("done", "m", path, "zoo")
    assert event["session_id"] == answer.headers["X-Attach-Session"]
    assert event["user"] == answer.headers["X-Attach-User"]
    if not (stream and path.startswith("/v1")):  # That engine counts only where it is asked to.
        assert (event["tokens_in"], event["tokens_out"]) == (7, 3)
    assert 0 < event["latency"] < 60
    (same,) = ((await client.get(f"/mem/events/{event['id']}")).json(),)
    assert same == event


async def test_a_note_is_kept_and_found(gateway: Running) -> None:
    _, client = gateway
    note = {"text": "The café in Zürich opens at nine", "title": "Opening hours", "rank": 3}
    made = await client.post("/mem/events", content=json.dumps(note), headers={"Content-Type": "text/plain"})
    assert made.status_code == 201
    (event,) = await events(client, event="note")
    assert (event["id"], event["text"], event["fields"]) == (
        made.json()["mem_id"],
        note["text"],
        {"title": "Opening hours", "rank": 3},
    )
    for question in ("cafe zurich", "opening", '"opens at nine"', "CAFÉ"):
        found = (await client.get("/mem/search", params={"q": question})).json()["events"]
        assert [one["id"] for one in found] == [event["id"]], question
    assert (await client.get("/mem/search", params={"q": '"nine opens"'})).json()["events"] == []
