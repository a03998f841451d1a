"""What an exchange took is free as soon as it is over: nobody has to search for it."""

from __future__ import annotations

import asyncio
import gc
import types
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from tests.dialects import DIALECTS, NDJSON, OLLAMA, Dialect
from tests.issuer import Issuer
from tests.servers import Connection, Engine, Gateway, Received, Script, serve_gateway, settings_for

OURS = ("a2a", "attach", "auth", "mem", "middleware", "proxy", "store", "usage", "wire")
FEW = 3
Leave = Literal["sending", "sent", "reading", "idle"]
LARGE = 64 * 1024  # From there on an answer is read in a thread.


@contextmanager
def only_counted() -> Iterator[None]:
    """Nothing is collected on its own."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def found_by_the_collector() -> Counter[str]:
    """What of ours leads back to itself: our objects, and what runs our code."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return Counter(filter(None, map(_our_name, gc.garbage)))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def _our_name(thing: object) -> str | None:
    if isinstance(thing, types.FrameType):
        module = thing.f_globals.get("__name__", "")
    elif isinstance(thing, types.FunctionType):
        module = thing.__module__ or ""
    else:
        module = type(thing).__module__
    name = getattr(thing, "__qualname__", type(thing).__qualname__)
    return f"{module}.{name}" if module.partition(".")[0] in OURS else None


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with Engine() as engine:
        yield engine


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer.start() as issuer:
        yield issuer


@pytest.fixture
async def gateway(issuer: Issuer, engine: Engine, tmp_path: Path) -> AsyncIterator[Gateway]:
    variables = {"MAX_TOKENS_PER_MIN": "1000000", "MEM_BACKEND": "sqlite", "USAGE_METERING": "prometheus"}
    settings = settings_for(issuer, engine.url, ATTACH_DATA_DIR=str(tmp_path), **variables)
    async with serve_gateway(settings) as gateway:
        yield gateway


async def ask(gateway: Gateway, issuer: Issuer, dialect: Dialect, *, stream: bool, leave: Leave | None = None) -> None:
    """Ask on a connection of its own, until all is over; `leave` it there."""
    body = dialect.ask(stream=stream)
    head = f"POST {dialect.path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\nAuthorization: Bearer {issuer.token()}\r\n"
    head += "\r\n" if leave else "Connection: close\r\n\r\n"
    state = gateway.server.server_state
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(head.encode() + (body[:-1] if leave == "sending" else body))
    try:
        match leave:
            case "sending" | "sent":
                while not state.tasks:  # noqa: ASYNC110 - the server has no event for it
                    await asyncio.sleep(0.005)
            case "reading":
                await reader.readuntil(b"\r\n\r\n")
            case "idle":
                answer = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]))
            case None:
                await reader.read()
    finally:
        writer.close()
    while state.connections or state.tasks:  # noqa: ASYNC110 - the server has no event for it
        await asyncio.sleep(0.005)


async def leaves_nothing(
    gateway: Gateway, issuer: Issuer, dialect: Dialect, *, stream: bool, leave: Leave | None = None
) -> None:
    await ask(gateway, issuer, dialect, stream=stream, leave=leave)
    with only_counted():
        for _ in range(FEW):
            await ask(gateway, issuer, dialect, stream=stream, leave=leave)
        assert found_by_the_collector() == {}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
async def test_an_exchange_leaves_nothing_to_the_collector(
    gateway: Gateway, issuer: Issuer, engine: Engine, dialect: Dialect, stream: bool
) -> None:
    engine.script = dialect.script()
    await leaves_nothing(gateway, issuer, dialect, stream=stream)


async def test_a_large_answer_leaves_nothing(gateway: Gateway, issuer: Issuer, engine: Engine) -> None:
    engine.script = OLLAMA.script(LARGE)
    await leaves_nothing(gateway, issuer, OLLAMA, stream=False)


async def broken_off(received: Received, connection: Connection) -> None:
    await connection.head(content_type=NDJSON, transfer_encoding="chunked")
    await connection.chunk(next(OLLAMA.frames(10)))
    connection.abort()


async def dropped(received: Received, connection: Connection) -> None:
    connection.abort()


async def refused(received: Received, connection: Connection) -> None:
    await connection.answer(b'{"error": "no"}', status="400 Bad Request")


async def never_ending(received: Received, connection: Connection) -> None:
    await connection.head(content_type=NDJSON, transfer_encoding="chunked")
    await connection.chunk(next(OLLAMA.frames(10)))
    await connection.closed()


@pytest.mark.parametrize("script", [broken_off, dropped, refused], ids=lambda script: script.__name__)
async def test_what_an_engine_fails_at_leaves_nothing(
    gateway: Gateway, issuer: Issuer, engine: Engine, script: Script
) -> None:
    engine.script = script
    await leaves_nothing(gateway, issuer, OLLAMA, stream=True)


async def silent(received: Received, connection: Connection) -> None:
    await connection.closed()


@pytest.mark.parametrize(
    ("leave", "script"),
    [("sending", silent), ("sent", silent), ("reading", never_ending), ("idle", OLLAMA.script())],
    ids=["sending", "sent", "reading", "idle"],
)
async def test_a_client_that_leaves_leaves_nothing(
    gateway: Gateway, issuer: Issuer, engine: Engine, leave: Leave, script: Script
) -> None:
    engine.script = script
    await leaves_nothing(gateway, issuer, OLLAMA, stream=leave == "reading", leave=leave)
