"""What looks on at an exchange lets nothing slip, costs no answer, and can be used in process."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import httpx
import openai
import pytest
from starlette.types import ASGIApp, Message, Scope

from attach import create_app
from attach.local_engine import LocalEngine
from auth import Identity
from middleware import ObserveMiddleware, Recorder, TokenQuotaMiddleware
from proxy import EngineProxy, EngineSettings, EngineTransport
from store import Change
from tests.dialects import COMPLETION, DIALECTS, OLLAMA, PROMPT, Dialect
from tests.issuer import Issuer
from tests.servers import Connection, Engine, Received, client_of, serve_gateway, settings_for
from tests.usage_rows import usage_rows
from usage import MemoryMeter, Metrics, TokenCounter, UsageBackend, UsageEvent

LIMIT = 1_000_000


class Listing(UsageBackend):
    """Keeps every event."""

    def __init__(self) -> None:
        self.events: list[UsageEvent] = []

    def changes(self, event: UsageEvent) -> Change | None:
        return None

    def observe(self, event: UsageEvent) -> None:
        self.events.append(event)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


def scope_of(method: str, path: str, *, user: str = "alice") -> Scope:
    """A scope as whoever calls the path to the engine in process makes it."""
    request_id = secrets.token_hex(16)
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "scheme": "http",
        "headers": [(b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")],
        "state": {
            "identity": Identity(user=user, subject=user, issuer="https://issuer.test", claims={}, scheme="oidc"),
            "request_id": request_id,
            "public_request_id": request_id.encode(),
            "answer_fields": [],
            "answer_started": False,
        },
    }


async def call(app: ASGIApp, scope: Scope, body: bytes, *, begun: asyncio.Event | None = None) -> list[Message]:
    """Call `app` as a client that stays until its answer is complete. `begun` is set when the first piece has come."""
    sent: list[Message] = []
    questions = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Message:
        for message in questions:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)
        if begun is not None and message.get("body"):
            begun.set()

    await app(scope, receive, send)
    return sent


class Way:
    """The path to a scripted engine, with everything that looks on."""

    def __init__(self, transport: EngineTransport, engine: Engine) -> None:
        self.meter = MemoryMeter(LIMIT)
        self.usage = Listing()
        counter = TokenCounter()
        counter.wait(20)
        self.recorder = Recorder(journal=None, counter=counter, metrics=Metrics(), usage=self.usage)
        proxy = EngineProxy(transport, EngineSettings(url=engine.url))
        self.app = ObserveMiddleware(TokenQuotaMiddleware(proxy, meter=self.meter), recorder=self.recorder)

    async def balance(self) -> int:
        """What is held, or lost, that nobody used."""
        await self.recorder.__aexit__()
        used = sum(event.tokens_in + event.tokens_out for event in self.usage.events)
        return LIMIT - (await self.meter.standing("alice")).remaining - used


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with Engine(OLLAMA.script()) as engine:
        yield engine


@pytest.fixture
async def path(engine: Engine) -> AsyncIterator[Way]:
    async with EngineTransport() as transport:
        yield Way(transport, engine)


async def test_wherever_a_request_is_cancelled_what_it_held_is_freed(path: Way, engine: Engine) -> None:
    finished = cancelled = 0
    for steps in range(400):
        task = asyncio.create_task(call(path.app, scope_of("POST", OLLAMA.path), OLLAMA.ask(stream=True)))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        finished, cancelled = finished + (not task.cancelled()), cancelled + task.cancelled()
        assert await path.balance() == 0, f"cancelled after {steps} steps"
        if finished >= 5:
            break
    assert cancelled > 5
    assert {event.tokens_out for event in path.usage.events if event.exact and event.status == 200} <= {COMPLETION}
    assert len({event.request_id for event in path.usage.events}) == len(path.usage.events)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
async def test_whatever_an_engine_does_in_the_middle_what_was_held_is_freed(
    path: Way, engine: Engine, dialect: Dialect
) -> None:
    frames = b"".join(dialect.frames(COMPLETION))
    for cut in range(0, len(frames), max(len(frames) // 40, 1)):

        async def break_off(received: Received, connection: Connection, cut: int = cut) -> None:
            await connection.head(content_type=dialect.media_type, transfer_encoding="chunked")
            if cut:
                await connection.chunk(frames[:cut])
            connection.abort()

        engine.script = break_off
        with pytest.raises(Exception, match="engine"):
            await call(path.app, scope_of("POST", dialect.path), dialect.ask(stream=True))
        assert await path.balance() == 0, f"broken off after {cut} bytes"


async def test_a_fault_of_who_looks_on_costs_no_answer(
    path: Way, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun = asyncio.Event()
    first, *rest = OLLAMA.frames(COMPLETION)

    async def in_two_pieces(received: Received, connection: Connection) -> None:
        await connection.head(content_type=OLLAMA.media_type, transfer_encoding="chunked")
        await connection.chunk(first)
        await begun.wait()
        await connection.chunk(b"".join(rest))
        await connection.last_chunk()

    engine.script = in_two_pieces

    class Faulty:
        def __init__(self, path: str) -> None:
            pass

        def seen(self, piece: bytes) -> bool:
            raise RuntimeError("a fault")

    monkeypatch.setattr("middleware.observed.LastFrame", Faulty)
    sent = await call(path.app, scope_of("POST", OLLAMA.path), OLLAMA.ask(stream=True), begun=begun)
    assert b"".join(message.get("body", b"") for message in sent) == b"".join(OLLAMA.frames(COMPLETION))
    assert sent[-1]["more_body"] is False
    assert "observe.failed" in caplog.text
    assert await path.balance() == 0
    assert [(event.tokens_in, event.tokens_out) for event in path.usage.events] == [(PROMPT, COMPLETION)]


async def test_the_gateway_offers_its_way_to_the_engine_in_process(engine: Engine, tmp_path: Path) -> None:
    async with Issuer.start() as issuer:
        app = create_app(
            settings_for(issuer, engine.url, MAX_TOKENS_PER_MIN="1000", ATTACH_DATA_DIR=str(tmp_path), ACCESS_LOG="off")
        )
        async with app.router.lifespan_context(app):
            scope = scope_of("POST", OLLAMA.path, user="carol")
            scope["state"]["task_id"] = "task-1"
            sent = await call(app.state.engine_path, scope, OLLAMA.ask(stream=True))
        (row,) = usage_rows(tmp_path)
    assert sent[0]["status"] == 200
    assert (b"x-ratelimit-limit-tokens", b"1000") in scope["state"]["answer_fields"]
    assert (row["user"], row["task_id"], row["tokens_in"], row["tokens_out"]) == ("carol", "task-1", PROMPT, COMPLETION)


async def test_a_prompt_right_after_the_start_is_counted_by_tokens_before_it_is_refused(engine: Engine) -> None:
    async with EngineTransport() as transport:
        path = Way(transport, engine)
        path.meter.limit = 400
        path.recorder.counter = TokenCounter()
        path.recorder.counter.start()
        body = OLLAMA.ask(stream=True, system="several words that are of one token each " * 20)
        sent = await call(path.app, scope_of("POST", OLLAMA.path), body)
    assert sent[0]["status"] == 200


# A real model.


@pytest.fixture
async def client(local_engine: LocalEngine, tmp_path: Path) -> AsyncIterator[openai.AsyncOpenAI]:
    variables = {"MAX_TOKENS_PER_MIN": "100000", "ENGINE_API_KEY": local_engine.api_key or ""}
    async with (
        Issuer.start() as issuer,
        serve_gateway(settings_for(issuer, local_engine.url, ATTACH_DATA_DIR=str(tmp_path), **variables)) as gateway,
        openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=issuer.token()) as client,
    ):
        yield client


QUESTION: Any = [{"role": "user", "content": "Count from one to five."}]


async def test_a_real_models_tokens_are_counted_as_it_counts_them(
    client: openai.AsyncOpenAI, local_engine: LocalEngine, tmp_path: Path
) -> None:
    model = local_engine.models[0]
    whole = await client.chat.completions.create(model=model, messages=QUESTION, max_tokens=10)
    asked = await client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=10, stream=True, stream_options={"include_usage": True}
    )
    told = [chunk.usage async for chunk in asked if chunk.usage is not None][-1]
    not_asked = await client.chat.completions.create(model=model, messages=QUESTION, max_tokens=10, stream=True)
    chunks = [chunk async for chunk in not_asked]
    rows = usage_rows(tmp_path)
    assert whole.usage is not None
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    counts = [(row["tokens_in"], row["tokens_out"], row["exact"]) for row in rows]
    assert counts[0] == (whole.usage.prompt_tokens, whole.usage.completion_tokens, 1)
    assert counts[1] == counts[2] == (told.prompt_tokens, told.completion_tokens, 1)
    assert counts[2][1] <= 10


@pytest.mark.parametrize(("path", "question"), [("/v1/messages", {"max_tokens": 10}), ("/v1/completions", {})])
async def test_a_real_model_is_metered_in_its_other_dialects(
    client: openai.AsyncOpenAI, local_engine: LocalEngine, tmp_path: Path, path: str, question: dict[str, Any]
) -> None:
    ask = {"model": local_engine.models[0], "prompt": "One, two,", "messages": QUESTION, "max_tokens": 10, **question}
    base = str(client.base_url).removesuffix("/v1/")
    headers = {"Authorization": f"Bearer {client.api_key}"}
    async with client_of(base) as plain:
        answer = await plain.post(path, json=ask, headers=headers)
        if answer.status_code == httpx.codes.NOT_FOUND:
            pytest.skip("this engine does not speak it")
        usage = answer.json()["usage"]
        streamed = await plain.post(path, json={**ask, "stream": True}, headers=headers)
    assert streamed.status_code == 200
    rows = usage_rows(tmp_path)
    # Anthropic counts what came out of a cache apart.
    read = ("input_tokens", "prompt_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    told = (
        sum(usage.get(name) or 0 for name in read),
        sum(usage.get(name) or 0 for name in ("output_tokens", "completion_tokens")),
    )
    assert (rows[0]["tokens_in"], rows[0]["tokens_out"], rows[0]["exact"]) == (*told, 1)
    assert rows[1]["exact"] == 1
    assert 0 < rows[1]["tokens_out"] <= 10
