"""Every exchange with the engine, as its client saw it, is in its owner's memory when the answer is complete."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from tests.dialects import COMPLETION, DIALECTS, MODEL, OLLAMA, OPENAI, PROMPT, Dialect, line
from tests.gateways import Stand, standing
from tests.servers import Connection, Received, Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = "".join(f"w{number} " for number in range(10))
each_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
streamed_or_not = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["alone", "with a quota"])
async def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    variables = {"MAX_TOKENS_PER_MIN": "100000"} if request.param == "with a quota" else {}
    directory = str(tmp_path_factory.mktemp("memory"))
    async with standing(MEM_BACKEND="sqlite", ATTACH_DATA_DIR=directory, **variables) as stand:  # type: ignore[arg-type]
        yield stand


@pytest.fixture
def stand(shared: Stand) -> Stand:
    """A gateway that remembers, for a user of whom it knows nothing."""
    shared.engine.left.clear()
    return replace(shared, token=shared.issuer.token(sub=f"user-{secrets.token_hex(4)}"))


async def events(stand: Stand) -> list[dict[str, Any]]:
    answer = await stand.ask("GET", "/mem/events")
    assert answer.status == 200
    return [(await stand.ask("GET", f"/mem/events/{event['id']}")).json() for event in answer.json()["events"]]


async def an_event(stand: Stand) -> dict[str, Any]:
    """Wait until there is one."""
    async with asyncio.timeout(20):
        while not (found := await events(stand)):  # noqa: ASYNC110 - what is behind HTTP tells of no events
            await asyncio.sleep(0.05)
    (event,) = found
    return event


@each_dialect
@streamed_or_not
async def test_an_exchange_is_remembered_as_its_client_saw_it(stand: Stand, dialect: Dialect, stream: bool) -> None:
    with stand.engine_answers(dialect.script()):
        answer = await stand.ask("POST", dialect.path, "X-Attach-Project: demo", body=dialect.ask(stream=stream))
        (event,) = await events(stand)
    assert answer.complete
    assert event["answer"] == TEXT
    assert (event["state"], event["model"], event["path"]) == ("done", MODEL, dialect.path)
    assert (event["tokens_in"], event["tokens_out"]) == (PROMPT, COMPLETION)
    assert event["session_id"] == answer.one("x-attach-session").decode()
    assert event["project"] == "demo"
    assert event["event"] == ("completion" if dialect.path == "/v1/completions" else "chat")
    assert 0 < event["latency"] < 60
    said = dialect.question.get("messages") or dialect.question.get("prompt") or dialect.question.get("input")
    assert (event["messages"] == said) if isinstance(said, list) else (event["messages"][0]["content"] == said)


async def test_the_bytes_of_an_exchange_that_is_remembered_are_the_clients_and_the_engines(stand: Stand) -> None:
    body = OPENAI.ask(stream=True, stream_options={"include_usage": True})
    with stand.engine_answers(OPENAI.script()):
        answer = await stand.ask("POST", OPENAI.path, body=body)
    assert answer.seen is not None
    assert answer.seen.body == body
    assert answer.body == b"".join(OPENAI.frames(COMPLETION))


async def test_what_a_client_left_is_remembered_as_far_as_it_came(stand: Stand) -> None:
    async def half(received: Received, connection: Connection) -> None:
        await connection.head(content_type=OLLAMA.media_type, transfer_encoding="chunked")
        for frame in list(OLLAMA.frames(COMPLETION))[:3]:
            await connection.chunk(frame)
        await connection.closed()

    with stand.engine_answers(half):
        async with stand.line() as client:
            await client.ask(stand.request("POST", OLLAMA.path, body=OLLAMA.ask(stream=True)))
            await client.head()
            taken = b""
            while taken.count(b"\n") < 3:
                taken += await client.chunk()
            client.leave()
        event = await an_event(stand)
    assert (event["state"], event["answer"]) == ("aborted", "w0 w1 w2 ")


def breaking_off(frames: int) -> Script:
    async def script(received: Received, connection: Connection) -> None:
        if frames:
            await connection.head(content_type=OLLAMA.media_type, transfer_encoding="chunked")
        for frame in list(OLLAMA.frames(COMPLETION))[:frames]:
            await connection.chunk(frame)
        connection.writer.close()

    return script


async def refusing(received: Received, connection: Connection) -> None:
    await connection.answer(line(error="no such model"), "404 Not Found")


@pytest.mark.parametrize(
    ("script", "state", "answer"),
    [(breaking_off(0), "error", ""), (breaking_off(2), "aborted", "w0 w1 "), (refusing, "error", "")],
    ids=["died before its answer", "died in it", "refused"],
)
async def test_what_an_engine_failed_at_is_remembered(stand: Stand, script: Script, state: str, answer: str) -> None:
    with stand.engine_answers(script):
        await stand.ask("POST", OLLAMA.path, body=OLLAMA.ask(stream=True))
        event = await an_event(stand)
    assert (event["state"], event["answer"]) == (state, answer)


async def test_who_does_not_want_to_be_remembered_is_not(stand: Stand) -> None:
    with stand.engine_answers(OLLAMA.script()):
        await stand.ask("POST", OLLAMA.path, "X-Attach-Memory: off", body=OLLAMA.ask(stream=True))
    assert await events(stand) == []


async def test_what_makes_no_tokens_is_no_exchange(stand: Stand) -> None:
    with stand.engine_answers(OLLAMA.script()):
        await stand.ask("POST", "/api/show", body=line(model=MODEL))
        await stand.ask("GET", "/api/tags")
    assert await events(stand) == []
