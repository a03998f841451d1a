"""Real servers on loopback: an engine that does what a test says, and the gateway itself in this process or its own."""

import asyncio
import io
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx

from attach import Settings, create_app
from attach.limits import Limits
from attach.listener import address_of, listen
from attach.server import GatewayServer, build_server
from tests.issuer import Issuer

ROOT = Path(__file__).parents[1]
_CHUNK = 64 * 1024


@dataclass
class Received:
    """One request as the engine got it, to the byte."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""

    def all(self, name: str) -> list[bytes]:
        """The values of every field called `name`, in any case."""
        return [value for key, value in self.headers if key.lower() == name.lower().encode()]

    def one(self, name: str) -> bytes:
        (value,) = self.all(name)
        return value


@dataclass
class Connection:
    """The engine's end of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    received: list[Received] = field(default_factory=list)

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def head(self, status: str = "200 OK", **headers: str) -> None:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        await self.send(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode())

    async def chunk(self, piece: bytes) -> None:
        await self.send(b"%x\r\n%s\r\n" % (len(piece), piece))

    async def last_chunk(self) -> None:
        await self.send(b"0\r\n\r\n")

    async def answer(self, body: bytes, status: str = "200 OK", **headers: str) -> None:
        headers.setdefault("content_type", "application/json")
        await self.head(status, content_length=str(len(body)), **headers)
        if self.received[-1].method != b"HEAD":
            await self.send(body)

    async def closed(self) -> None:
        """Wait until the other side closed or broke the connection."""
        with suppress(ConnectionError):
            while await self.reader.read(_CHUNK):
                pass

    def abort(self) -> None:
        """Reset the connection: no farewell."""
        self.writer.transport.abort()

    async def read_head(self) -> Received:
        method, target, _ = (await self.reader.readuntil(b"\r\n")).split(b" ", 2)
        headers = []
        while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
            name, _, value = line.partition(b":")
            headers.append((name, value.strip()))
        received = Received(method, target, headers)
        self.received.append(received)
        return received

    async def pieces(self, received: Received) -> AsyncIterator[bytes]:
        """The request's body as it comes."""
        if received.all("transfer-encoding"):
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                yield await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
            return
        left = int((received.all("content-length") or [b"0"])[0])
        while left:
            piece = await self.reader.read(min(left, _CHUNK))
            if not piece:
                raise ConnectionResetError
            left -= len(piece)
            yield piece


Script = Callable[[Received, Connection], Awaitable[None]]


async def hello(received: Received, connection: Connection) -> None:
    await connection.answer(b'{"hello": true}')


class Engine:
    """A model server of raw sockets. `script` answers each request; by default the body is read before it runs.

    Attributes:
        received: Every request so far.
        connections: How many connections were ever made.
        left: Set when a client closed or broke a connection while its request was being answered.
    """

    def __init__(self, script: Script = hello, *, read_body: bool = True) -> None:
        self.script = script
        self.read_body = read_body
        self.received: list[Received] = []
        self.connections = 0
        self.left = asyncio.Event()
        self.url = ""
        self._port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.die()

    async def die(self) -> None:
        """As killed: nothing listens, every connection is reset."""
        if self._server is None:
            return
        self._server.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    @property
    def last(self) -> Received:
        return self.received[-1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        connection = Connection(reader, writer)
        try:
            while True:
                await self._exchange(connection)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:
            connection.abort()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _exchange(self, connection: Connection) -> None:
        received = await connection.read_head()
        self.received.append(received)
        try:
            if self.read_body:
                received.body = b"".join([piece async for piece in connection.pieces(received)])
            await self.script(received, connection)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
            raise


def settings_for(issuer: Issuer, engine_url: str, **variables: str) -> Settings:
    """What an operator would set for `issuer` and an engine; no waiting at the end."""
    return Settings.from_environ(environ_for(issuer, engine_url, **variables))


def environ_for(issuer: Issuer, engine_url: str, **variables: str) -> dict[str, str]:
    return {
        "OIDC_ISSUER": issuer.url,
        "OIDC_AUD": issuer.audience,
        "MEM_BACKEND": "none",
        "ENGINE_URL": engine_url,
        "DRAIN_DELAY": "0",
        "SHUTDOWN_GRACE": "5",
        **variables,
    }


@dataclass
class Gateway:
    """A gateway that runs in this process on a real socket."""

    url: str
    server: GatewayServer
    access_lines: io.StringIO

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def raw(self, request: bytes, *, until: bytes | None = None) -> bytes:
        """Send bytes on a new connection; what comes back until `until`, or until the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            with suppress(ConnectionError):
                await writer.drain()
            return await (reader.read() if until is None else reader.readuntil(until))
        finally:
            writer.close()


@asynccontextmanager
async def serve_gateway(settings: Settings, *, limits: Limits | None = None) -> AsyncIterator[Gateway]:
    """Run a gateway on a free port for as long as the block lasts."""
    access_lines = io.StringIO()
    app = create_app(settings, access_stream=access_lines)
    listener = listen("127.0.0.1", 0)
    server = build_server(app, settings.server, limits=limits)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    waiting = asyncio.create_task(server.listening.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield Gateway(f"http://{address_of(listener)}", server, access_lines)
    finally:
        waiting.cancel()
        server.should_exit = True
        await running


@asynccontextmanager
async def spawn(*arguments: str, environ: Mapping[str, str], cwd: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `attach-gateway` as a process of its own; killed at the end if it still runs."""
    inherited = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "PYTHONPATH")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "attach",
        *arguments,
        cwd=cwd,
        env={**inherited, "PYTHONPATH": str(ROOT), **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
        await process.communicate()


async def started(process: asyncio.subprocess.Process) -> str:
    """The address that a spawned gateway says it listens on."""
    assert process.stderr is not None
    async for line in process.stderr:
        text = line.decode()
        if "server.started" in text:
            return "http://" + text.split("address=")[1].split()[0]
    raise AssertionError("the gateway ended before it listened")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
        yield client
