"""A gateway that is told to stop lets end what runs, says so where it cannot, and is gone when it said it would be."""

import asyncio
import json
import signal
import time
from asyncio import StreamReader
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.issuer import Issuer
from tests.servers import Connection, Engine, Received, bearer, client_of, environ_for, spawn, started

SSE = b'data: {"choices": [{"delta": {"content": "one"}}]}\n\n'
NDJSON = b'{"message": {"content": "one"}, "done": false}\n'
ANTHROPIC = b'event: content_block_delta\ndata: {"type": "content_block_delta"}\n\n'


@dataclass
class Stream:
    """An engine's answer of which the first piece goes out at once and the last one when `finish` is set."""

    piece: bytes = SSE
    content_type: str = "text/event-stream"
    finish: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, received: Received, connection: Connection) -> None:
        await connection.head(content_type=self.content_type, transfer_encoding="chunked")
        await connection.chunk(self.piece)
        gone = asyncio.create_task(connection.closed())
        finish = asyncio.create_task(self.finish.wait())
        await asyncio.wait({gone, finish}, return_when=asyncio.FIRST_COMPLETED)
        finish.cancel()
        if gone.done():
            self.left.set()
            raise ConnectionResetError
        gone.cancel()
        await asyncio.wait({gone})
        await connection.chunk(b"data: [DONE]\n\n")
        await connection.last_chunk()


@asynccontextmanager
async def running(
    script: Stream, tmp_path: Path, **variables: str
) -> AsyncIterator[tuple[Process, str, dict[str, str]]]:
    """A gateway as a process of its own, its address, and the header of a caller whom it knows."""
    async with Issuer.start() as issuer, Engine(script) as engine:
        environ = environ_for(issuer, engine.url, **variables)
        async with spawn("--port", "0", environ=environ, cwd=tmp_path) as process:
            yield process, await started(process), bearer(issuer.token())


@asynccontextmanager
async def begun(
    url: str, headers: dict[str, str], path: str = "/v1/chat/completions"
) -> AsyncIterator[AsyncIterator[bytes]]:
    """A stream whose first piece has come: what comes after that."""
    async with client_of(url) as client, client.stream("POST", path, headers=headers, json={}) as answer:
        pieces = answer.aiter_raw()
        await anext(pieces)
        yield pieces


async def on_a_new_connection(url: str, path: str) -> httpx.Response | None:
    """None where nobody accepts it."""
    async with client_of(url) as client:
        try:
            return await client.get(path)
        except httpx.ConnectError:
            return None


async def the_rest(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


async def said(process: Process, event: str) -> None:
    """Wait until the gateway's log tells `event`."""
    assert process.stderr is not None
    while event.encode() not in await process.stderr.readline():
        assert not process.stderr.at_eof()


async def ended(process: Process) -> tuple[int | None, str]:
    assert isinstance(process.stderr, StreamReader)
    rest = await process.stderr.read()
    return await process.wait(), rest.decode()


async def test_it_drains_while_a_stream_runs_to_its_end(tmp_path: Path) -> None:
    script = Stream()
    async with (
        running(script, tmp_path, DRAIN_DELAY="1.5", SHUTDOWN_GRACE="20") as (process, url, headers),
        begun(url, headers) as pieces,
        client_of(url) as another,
    ):
        assert (await another.get("/readyz")).status_code == 200
        process.send_signal(signal.SIGTERM)
        await said(process, "server.draining")
        before = time.monotonic()
        ready = await on_a_new_connection(url, "/readyz")
        assert ready is not None
        assert (ready.status_code, ready.json()["reasons"]) == (503, ["draining"])
        while (answer := await on_a_new_connection(url, "/healthz")) is not None:
            assert answer.status_code == 200
        assert 1 < time.monotonic() - before < 10
        script.finish.set()
        assert await the_rest(pieces) == b"data: [DONE]\n\n"
        code, log = await ended(process)
    assert code == 0
    assert "Traceback" not in log


async def test_while_it_drains_clients_are_sent_to_other_connections(tmp_path: Path) -> None:
    async with running(Stream(), tmp_path, DRAIN_DELAY="20") as (process, url, _), client_of(url) as client:
        assert "connection" not in (await client.get("/healthz")).headers
        process.send_signal(signal.SIGTERM)
        await said(process, "server.draining")
        before = time.monotonic()
        while (answer := await client.get("/healthz")).headers.get("connection") != "close":
            assert time.monotonic() - before < 5
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("path", "content_type", "piece", "code_at"),
    [
        ("/v1/chat/completions", "text/event-stream", SSE, "OpenAI"),
        ("/v1/messages", "text/event-stream; charset=utf-8", ANTHROPIC, "Anthropic"),
        ("/api/chat", "application/x-ndjson", NDJSON, "Ollama"),
    ],
    ids=["OpenAI", "Anthropic", "Ollama"],
)
async def test_a_stream_that_outlasts_the_grace_ends_with_an_error_of_its_own_kind(
    tmp_path: Path, path: str, content_type: str, piece: bytes, code_at: str
) -> None:
    script = Stream(piece=piece, content_type=content_type)
    async with running(script, tmp_path, SHUTDOWN_GRACE="0.5") as (process, url, headers):
        async with begun(url, headers, path) as pieces:
            process.send_signal(signal.SIGTERM)
            rest = await the_rest(pieces)  # and no error: the end is a clean one
        assert error_in(rest, code_at) == "The gateway is being stopped: send the request again."
        await asyncio.wait_for(script.left.wait(), 5)
        code, log = await ended(process)
    assert code == 0
    assert "Traceback" not in log


def error_in(rest: bytes, dialect: str) -> object:
    if dialect == "Ollama":
        return json.loads(rest)["error"]
    *event, line, empty, after = rest.decode().split("\n")
    document = json.loads(line.removeprefix("data: "))
    assert (empty, after) == ("", "")
    if dialect == "Anthropic":
        assert event == ["event: error"]
        assert document["type"] == "error"
    return document["error"]["message"]


@pytest.mark.parametrize("piece", [SSE + b"data: {", SSE[:-1]], ids=["in a line", "between two lines"])
async def test_a_stream_that_stands_inside_an_event_is_broken_and_not_falsified(tmp_path: Path, piece: bytes) -> None:
    async with (
        running(Stream(piece=piece), tmp_path, SHUTDOWN_GRACE="0") as (process, url, headers),
        begun(url, headers) as pieces,
    ):
        process.send_signal(signal.SIGTERM)
        with pytest.raises(httpx.RemoteProtocolError):
            await the_rest(pieces)
        assert (await ended(process))[0] == 0


async def test_a_second_signal_stops_it_at_once(tmp_path: Path) -> None:
    async with (
        running(Stream(), tmp_path, DRAIN_DELAY="50", SHUTDOWN_GRACE="50") as (process, url, headers),
        begun(url, headers) as pieces,
    ):
        process.send_signal(signal.SIGTERM)
        await said(process, "server.draining")
        before = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code, log = await ended(process)
        assert time.monotonic() - before < 5
        with pytest.raises(httpx.TransportError):
            await the_rest(pieces)
    assert code == 0
    assert "Traceback" not in log
    assert "incomplete" in log


async def test_a_client_that_keeps_its_connection_open_keeps_nobody(tmp_path: Path) -> None:
    async with running(Stream(), tmp_path, SHUTDOWN_GRACE="50") as (process, url, _), client_of(url) as client:
        assert (await client.get("/healthz")).status_code == 200
        process.send_signal(signal.SIGTERM)
        code, _ = await asyncio.wait_for(ended(process), 5)
    assert code == 0


async def test_a_client_that_does_not_read_keeps_nobody(tmp_path: Path) -> None:
    script = Stream(piece=b"x" * 30_000_000)
    async with (
        running(script, tmp_path, SHUTDOWN_GRACE="0.5") as (process, url, headers),
        client_of(url) as client,
        client.stream("POST", "/api/generate", headers=headers, json={}),
    ):
        process.send_signal(signal.SIGTERM)
        code, log = await asyncio.wait_for(ended(process), 10)
    assert code == 0
    assert "Traceback" not in log
