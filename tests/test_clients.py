"""The stock `openai` and `ollama` clients do through the gateway, unchanged, what they do without it."""

import asyncio
import json
from collections.abc import AsyncIterator

import ollama
import openai
import pytest

from attach.local_engine import LocalEngine
from tests.issuer import Issuer
from tests.servers import Connection, Engine, Gateway, Received, bearer, serve_gateway, settings_for

QUESTION = "What is the capital of France?"


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer.start() as issuer:
        yield issuer


# OpenAI's, in front of a real model


@pytest.fixture
async def gateway(issuer: Issuer, local_engine: LocalEngine) -> AsyncIterator[Gateway]:
    settings = settings_for(issuer, local_engine.url, ENGINE_API_KEY=local_engine.api_key)
    async with serve_gateway(settings) as gateway:
        yield gateway


@pytest.fixture
async def openai_client(gateway: Gateway, issuer: Issuer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=issuer.token()) as client:
        yield client


async def test_openai_chats_with_a_real_model(openai_client: openai.AsyncOpenAI, local_engine: LocalEngine) -> None:
    raw = await openai_client.chat.completions.with_raw_response.create(
        model=local_engine.models[0], messages=[{"role": "user", "content": QUESTION}]
    )
    completion = raw.parse()
    assert "Paris" in (completion.choices[0].message.content or "")
    assert completion.usage is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    assert raw.headers["X-Attach-User"] == "alice"


async def test_openai_streams_from_a_real_model(openai_client: openai.AsyncOpenAI, local_engine: LocalEngine) -> None:
    stream = await openai_client.chat.completions.create(
        model=local_engine.models[0], messages=[{"role": "user", "content": QUESTION}], stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    assert "Paris" in "".join(pieces)
    assert len(pieces) > 2


async def test_openai_lists_the_models_that_are_there(
    openai_client: openai.AsyncOpenAI, local_engine: LocalEngine
) -> None:
    assert [model.id async for model in openai_client.models.list()] == list(local_engine.models)


async def test_the_blocking_openai_client_works_too(
    gateway: Gateway, issuer: Issuer, local_engine: LocalEngine
) -> None:
    def ask() -> str:
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=issuer.token()) as client:
            completion = client.chat.completions.create(
                model=local_engine.models[0], messages=[{"role": "user", "content": QUESTION}]
            )
            return completion.choices[0].message.content or ""

    assert "Paris" in await asyncio.to_thread(ask)


async def test_openai_understands_a_refusal(gateway: Gateway, issuer: Issuer) -> None:
    wrong = issuer.token(aud="somebody else")
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=wrong, max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            await client.models.list()
    assert refused.value.code == "invalid_token"
    assert refused.value.type == "authentication_error"
    assert "audience" in refused.value.message


# Ollama's, in front of an engine that speaks as Ollama does


MODEL = {
    "name": "llama3:8b",
    "model": "llama3:8b",
    "modified_at": "2026-01-02T03:04:05.678+01:00",
    "size": 4661224676,
    "digest": "365c0bd3c000a25d28ddbf732fe1c6add414de7275464c4e4d1c3b5fcb5d8ad1",
    "details": {"format": "gguf", "family": "llama", "parameter_size": "8.0B", "quantization_level": "Q4_0"},
}
WORDS = ("Par", "is", ".")
LAST = {"done": True, "done_reason": "stop", "total_duration": 5043500667, "prompt_eval_count": 26, "eval_count": 3}


def message(content: str, **members: object) -> bytes:
    chunk = {
        "model": "llama3:8b",
        "created_at": "2026-01-02T03:04:05.678901Z",
        "message": {"role": "assistant", "content": content},
        "done": False,
    }
    return json.dumps({**chunk, **members}).encode() + b"\n"


async def as_ollama(received: Received, connection: Connection) -> None:
    if received.target == b"/api/tags":
        await connection.answer(json.dumps({"models": [MODEL]}).encode())
    elif json.loads(received.body)["model"] != "llama3:8b":
        await connection.answer(b'{"error":"model \\"none\\" not found"}', "404 Not Found")
    elif json.loads(received.body)["stream"]:
        await connection.head(content_type="application/x-ndjson", transfer_encoding="chunked")
        for word in WORDS:
            await connection.chunk(message(word))
        await connection.chunk(message("", **LAST))
        await connection.last_chunk()
    else:
        await connection.answer(message("".join(WORDS), **LAST))


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with Engine(as_ollama) as engine:
        yield engine


@pytest.fixture
async def ollama_gateway(issuer: Issuer, engine: Engine) -> AsyncIterator[Gateway]:
    async with serve_gateway(settings_for(issuer, engine.url)) as gateway:
        yield gateway


@pytest.fixture
def ollama_client(ollama_gateway: Gateway, issuer: Issuer) -> ollama.AsyncClient:
    return ollama.AsyncClient(host=ollama_gateway.url, headers=bearer(issuer.token()))


CHAT = [{"role": "user", "content": QUESTION}]


async def test_ollama_chats(ollama_client: ollama.AsyncClient, engine: Engine) -> None:
    async with ollama_client:
        answer = await ollama_client.chat(model="llama3:8b", messages=CHAT)
    assert (answer.message.content, answer.done, answer.eval_count) == ("Paris.", True, 3)
    assert engine.last.one("X-Attach-User") == b"alice"
    assert not engine.last.all("Authorization")


async def test_ollama_streams(ollama_client: ollama.AsyncClient) -> None:
    async with ollama_client:
        stream = await ollama_client.chat(model="llama3:8b", messages=CHAT, stream=True)
        chunks = [chunk async for chunk in stream]
    assert [chunk.message.content for chunk in chunks] == [*WORDS, ""]
    assert [chunk.done for chunk in chunks] == [False, False, False, True]


async def test_ollama_lists_the_models_that_are_there(ollama_client: ollama.AsyncClient) -> None:
    async with ollama_client:
        listed = await ollama_client.list()
    assert [model.model for model in listed.models] == ["llama3:8b"]


async def test_the_blocking_ollama_client_works_too(ollama_gateway: Gateway, issuer: Issuer) -> None:
    def ask() -> list[str | None]:
        client = ollama.Client(host=ollama_gateway.url, headers=bearer(issuer.token()))
        with client:
            return [chunk.message.content for chunk in client.chat(model="llama3:8b", messages=CHAT, stream=True)]

    assert await asyncio.to_thread(ask) == [*WORDS, ""]


async def test_ollama_understands_a_refusal(ollama_gateway: Gateway, issuer: Issuer) -> None:
    expired = issuer.token(exp=1)
    async with ollama.AsyncClient(host=ollama_gateway.url, headers=bearer(expired)) as client:
        with pytest.raises(ollama.ResponseError) as refused:
            await client.chat(model="llama3:8b", messages=CHAT)
    assert refused.value.status_code == 401
    assert "expired" in refused.value.error


async def test_ollama_hears_the_engines_own_errors(ollama_client: ollama.AsyncClient) -> None:
    async with ollama_client:
        with pytest.raises(ollama.ResponseError) as refused:
            await ollama_client.chat(model="none", messages=CHAT)
    assert (refused.value.status_code, refused.value.error) == (404, 'model "none" not found')
