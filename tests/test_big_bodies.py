"""Bodies of any size pass through, whole, in a few megabytes of memory; and no faster than they are taken."""

import asyncio
import zlib
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from tests.issuer import Issuer
from tests.processes import resident_bytes
from tests.servers import Connection, Engine, Received, environ_for, spawn, started

SIZE = 256 * 1024 * 1024
MOST_GROWTH = 20_000_000
PIECE = Random(1).randbytes(1024 * 1024 - 7)  # no power of two: pieces and reads do not line up

framings = pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])


@dataclass
class Tally:
    """How much went by, and its checksum."""

    size: int = 0
    checksum: int = 0

    def add(self, piece: bytes) -> None:
        self.size += len(piece)
        self.checksum = zlib.crc32(piece, self.checksum)


@dataclass
class Spawned:
    """A gateway as a process of its own."""

    pid: int
    port: int
    token: str
    at_rest: int = 0

    @asynccontextmanager
    async def asked(self, method: str, *lines: str) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1024 * 1024)
        head = [
            f"{method} /api/blobs/sha256:0 HTTP/1.1",
            "Host: gateway",
            f"Authorization: Bearer {self.token}",
            *lines,
        ]
        writer.write("\r\n".join([*head, "", ""]).encode())
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    def growth(self) -> int:
        """By how much its memory was ever larger than at rest."""
        return resident_bytes(self.pid, peak=True) - self.at_rest


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with Engine(read_body=False) as engine:
        yield engine


@pytest.fixture
async def gateway(engine: Engine, tmp_path: Path) -> AsyncIterator[Spawned]:
    async with Issuer.start() as issuer:
        environ = environ_for(issuer, engine.url)
        async with spawn("--port", "0", environ=environ, cwd=tmp_path) as process:
            url = await started(process)
            spawned = Spawned(process.pid, int(url.rpartition(":")[2]), issuer.token())
            async with spawned.asked("GET") as (reader, _):  # so that all is loaded that will be
                assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
            spawned.at_rest = resident_bytes(process.pid)
            yield spawned


@framings
async def test_an_upload_passes_whole(gateway: Spawned, engine: Engine, chunked: bool) -> None:
    sent, arrived = Tally(), Tally()

    async def take(received: Received, connection: Connection) -> None:
        async for piece in connection.pieces(received):
            arrived.add(piece)
        await connection.answer(b"{}", "201 Created")

    engine.script = take
    size = SIZE // len(PIECE) * len(PIECE)
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    async with gateway.asked("POST", framing) as (reader, writer):
        while sent.size < size:
            writer.write(b"%x\r\n%s\r\n" % (len(PIECE), PIECE) if chunked else PIECE)
            await writer.drain()
            sent.add(PIECE)
        writer.write(b"0\r\n\r\n" if chunked else b"")
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 201")
    assert arrived == sent
    assert gateway.growth() < MOST_GROWTH


@framings
async def test_a_download_passes_whole(gateway: Spawned, engine: Engine, chunked: bool) -> None:
    sent, arrived = Tally(), Tally()
    size = SIZE // len(PIECE) * len(PIECE)

    async def give(received: Received, connection: Connection) -> None:
        framing = {"transfer_encoding": "chunked"} if chunked else {"content_length": str(size)}
        await connection.head(content_type="application/octet-stream", **framing)
        while sent.size < size:
            await (connection.chunk if chunked else connection.send)(PIECE)
            sent.add(PIECE)
        if chunked:
            await connection.last_chunk()

    engine.script = give
    async with gateway.asked("GET", "Accept: */*") as (reader, _):
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        while arrived.size < size:
            arrived.add(await (read_chunk(reader) if chunked else reader.read(256 * 1024)))
        if chunked:
            assert await reader.readline() == b"0\r\n"
    assert arrived == sent
    assert gateway.growth() < MOST_GROWTH


async def read_chunk(reader: StreamReader) -> bytes:
    size = int(await reader.readline(), 16)
    return (await reader.readexactly(size + 2))[:-2]


async def test_a_client_that_does_not_read_stops_the_engine(gateway: Spawned, engine: Engine) -> None:
    sent = Tally()

    async def give(received: Received, connection: Connection) -> None:
        await connection.head(content_type="application/octet-stream", content_length=str(SIZE))
        while sent.size < SIZE:
            await connection.send(PIECE)
            sent.size += len(PIECE)

    engine.script = give
    async with gateway.asked("GET"):
        await no_more(sent)
    assert 0 < sent.size < 50_000_000
    assert gateway.growth() < MOST_GROWTH


async def test_an_engine_that_does_not_read_stops_the_client(gateway: Spawned, engine: Engine) -> None:
    sent = Tally()

    async def ignore(received: Received, connection: Connection) -> None:
        await asyncio.Event().wait()

    async def push(writer: StreamWriter) -> None:
        while True:
            writer.write(PIECE)
            await writer.drain()
            sent.size += len(PIECE)

    engine.script = ignore
    async with gateway.asked("POST", f"Content-Length: {SIZE}") as (_, writer):
        pushing = asyncio.create_task(push(writer))
        await no_more(sent)
        pushing.cancel()
        await asyncio.wait({pushing})
    assert 0 < sent.size < 50_000_000
    assert gateway.growth() < MOST_GROWTH


async def no_more(tally: Tally) -> None:
    """Wait until something has gone by, and for a second nothing more."""
    before = -1
    while tally.size == 0 or tally.size != before:
        before = tally.size
        await asyncio.sleep(1)
